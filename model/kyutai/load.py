"""Load a language model of the Kyutai family, strictly, one tensor after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from kernels.nf4 import NF4Linear
from model.attention import rope_frequencies
from model.codec.mimi import Mimi, load_mimi
from model.kyutai.check import sound_directory
from model.kyutai.config import KyutaiConfig
from model.kyutai.text import TextPieces
from model.kyutai.weights import Weights, open_weights, skeleton
from model.layout import for_few_rows
from model.lm import LM
from model.published import TensorFile
from model.weights import Linears, hot_linears, to_int8

# Worked out once a session, and kept exact: the reference has them in float32 as well.
_EXACT = "conditioners."


def load_lm(
    path: Path,
    config: KyutaiConfig,
    dtype: torch.dtype = torch.float32,
    *,
    linears: Linears = "dense",
    device: torch.device | str = "cpu",
) -> LM:
    """Read a language model; no more than one tensor of it is ever there in full precision.

    Args:
        path: safetensors file in any layout of `model.kyutai.layouts`, its index if it is split, or
            a file that `parley quantize` wrote.
        config: what its `config.json` says.
        dtype: of the weights in memory, conditioners excepted, which are float32.
        linears: how the linears are held that a step spends its time in: "dense" in `dtype`, "nf4",
            or "int8", for few rows on a CPU.
        device: where the weights are put. They are converted on the CPU.

    Returns:
        The model, for inference.

    Raises:
        WeightsError: naming the file and the tensor that is missing, cut short, left over, or has
            another shape (got and expected); before anything is read.
        ConfigError: if the model has a width that int8 cannot do.
    """
    weights = open_weights(TensorFile(path), config)
    lm = skeleton(config)
    targets, hot = lm.state_dict(), hot_linears(lm)
    empty = {name for name, target in targets.items() if target.numel() == 0}
    is_slow_memory = torch.device(device).type == "cpu" and dtype == torch.float32
    names = list(weights.names)
    assert set(names) == targets.keys() - empty, set(names) ^ (targets.keys() - empty)
    for name in names:
        owner = name.rpartition(".")[0]
        if owner in hot and linears != "dense":
            quantised = _quantised(weights, name, hot[owner], linears)
            lm.set_submodule(owner, quantised.to(device))
            continue
        tensor = weights.read(name)
        assert tensor.shape == targets[name].shape, name
        kept = torch.float32 if name.startswith(_EXACT) else dtype
        # A part of a larger tensor would keep all of it: these are copies.
        if is_slow_memory and isinstance(lm.get_submodule(owner), nn.Linear):
            tensor = for_few_rows(tensor)
        else:
            tensor = tensor.to(kept, copy=True, memory_format=torch.contiguous_format)
        _assign(lm, name, tensor.to(device))
    for name in empty:
        _assign(lm, name, torch.empty(targets[name].shape, dtype=dtype, device=device))
    frequencies = rope_frequencies(lm.config.head_dim, lm.config.rope_base)
    lm.rope_frequencies = frequencies.to(device)
    return lm.eval()


@dataclass(frozen=True, slots=True)
class Loaded:
    """Everything that a checkpoint's directory holds, for inference.

    Attributes:
        config: of the language model.
        lm: the language model.
        mimi: the codec, with the codebooks that the model uses, float32 on the CPU.
        pieces: of text.
        voices: files of PersonaPlex's voices by name, for `model.kyutai.voices.load_voice`.
    """

    config: KyutaiConfig
    lm: LM
    mimi: Mimi
    pieces: TextPieces
    voices: Mapping[str, Path]


def load_checkpoint(
    directory: Path,
    dtype: torch.dtype = torch.float32,
    *,
    linears: Linears = "dense",
    device: torch.device | str = "cpu",
) -> Loaded:
    """Read a checkpoint's directory, in any layout; arguments and errors as `load_lm`."""
    found = sound_directory(directory)
    config = found.config
    assert config is not None
    mimi = load_mimi(
        found.files["mimi"],
        found.mimi,
        num_codebooks=config.num_mimi_codebooks,
        prefix=found.mimi_prefix,
    )
    lm = load_lm(found.files["lm"], config, dtype, linears=linears, device=device)
    return Loaded(config, lm, mimi, TextPieces.load(found.files["tokenizer"]), found.voices)


def _quantised(weights: Weights, name: str, linear: nn.Linear, linears: Linears) -> nn.Module:
    if linears == "nf4":
        packed = NF4Linear(linear.in_features, linear.out_features, backend="reference")
        packed.packed, packed.absmax = weights.read_nf4(name)
        return packed
    dense = nn.Linear(linear.in_features, linear.out_features, bias=False, device="meta")
    dense.weight = nn.Parameter(weights.read(name), requires_grad=False)
    return to_int8(name, dense)


def _assign(lm: LM, name: str, tensor: Tensor) -> None:
    owner, _, last = name.rpartition(".")
    lm.get_submodule(owner).register_parameter(last, nn.Parameter(tensor, requires_grad=False))
