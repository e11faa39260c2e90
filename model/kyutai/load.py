"""Load a language model of the Kyutai family, strictly, one tensor after the other."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from kernels.nf4 import NF4Linear
from model.files.published import TensorFile
from model.kyutai.config import KyutaiConfig
from model.kyutai.weights import Weights, open_weights, skeleton
from model.precision import Linears
from model.transformer.layout import for_few_rows
from model.transformer.linears import hot_linears, to_int8, use_bitsandbytes
from model.transformer.lm import LM

# Worked out once a session, and kept exact: the reference has them in float32 as well.
_EXACT = "conditioners."


def load_lm(
    path: Path,
    config: KyutaiConfig,
    dtype: torch.dtype = torch.float32,
    *,
    linears: Linears = "dense",
    device: torch.device | str = "cpu",
    rewind_steps: int = 0,
) -> LM:
    """Read a language model; no more than one tensor of it is ever there in full precision.

    Args:
        path: safetensors file in any layout of `model.kyutai.layouts`, its index if it is split, or
            a file that `parley quantize` wrote.
        config: what its `config.json` says.
        dtype: of the weights in memory, conditioners excepted, which are float32.
        linears: how the linears are held that a step spends its time in: "dense" in `dtype`, "nf4",
            "bitsandbytes" (NF4, by that package's kernels), or "int8". On a CPU that is for few
            rows, and widths that are multiples of 16.
        device: where the weights are put. They are converted on the CPU.
        rewind_steps: newest steps of a conversation that can be taken back.

    Returns:
        The model, for inference.

    Raises:
        WeightsError: naming the file and the tensor that is missing, cut short, left over, or has
            another shape (got and expected); before anything is read.
        ConfigError: if the model has a width that int8 cannot do on the device, or bitsandbytes is
            asked for and not installed.
    """
    # The file is checked as a whole before a tensor is read. Then one tensor after the other is
    # read, converted and put where it belongs, so the most that is there at once is the model as it
    # is going to be, and one tensor in float32.
    weights = open_weights(TensorFile(path), config)
    lm = skeleton(config, rewind_steps)
    targets, hot = lm.state_dict(), hot_linears(lm)
    # A model with ears only has a codebook table of no rows. No file holds it.
    empty = {name for name, target in targets.items() if target.numel() == 0}
    is_slow_memory = torch.device(device).type == "cpu" and dtype == torch.float32
    names = list(weights.names)
    assert set(names) == targets.keys() - empty, set(names) ^ (targets.keys() - empty)
    for name in names:
        owner = name.rpartition(".")[0]
        if owner in hot and linears != "dense":
            quantised = _quantised(weights, name, hot[owner], linears, torch.device(device))
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
    lm.rope_frequencies = lm.rope_frequencies.to(device)
    if linears == "bitsandbytes":
        use_bitsandbytes(lm)
    return lm.eval()


def _quantised(
    weights: Weights, name: str, linear: nn.Linear, linears: Linears, device: torch.device
) -> nn.Module:
    if linears in ("nf4", "bitsandbytes"):
        # The numbers are packed already, or packed here as they are read. The dense weight is never
        # there as a whole model.
        packed = NF4Linear(linear.in_features, linear.out_features, backend="reference")
        packed.packed, packed.absmax = weights.read_nf4(name)
        return packed
    dense = nn.Linear(linear.in_features, linear.out_features, bias=False, device="meta")
    dense.weight = nn.Parameter(weights.read(name), requires_grad=False)
    return to_int8(name, dense, "aten" if device.type == "cpu" else "reference")


def _assign(lm: LM, name: str, tensor: Tensor) -> None:
    owner, _, last = name.rpartition(".")
    lm.get_submodule(owner).register_parameter(last, nn.Parameter(tensor, requires_grad=False))
