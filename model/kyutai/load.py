"""Load a language model of the Kyutai family from its published file, strictly."""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from torch import nn

from model.kyutai.check import check_lm
from model.kyutai.config import KyutaiConfig
from model.kyutai.names import sources
from model.lm import LM
from model.published import TensorFile
from model.rotary import rope_frequencies


def load_lm(path: Path, config: KyutaiConfig, dtype: torch.dtype = torch.float32) -> LM:
    """Read a language model, one tensor after the other.

    Args:
        path: safetensors file in Kyutai's layout.
        config: what its `config.json` says.
        dtype: of the weights in memory.

    Returns:
        The model on the CPU, for inference.

    Raises:
        WeightsError: naming the file and the tensor that is missing, cut short, left over, or has
            another shape (got and expected); before anything is read.
    """
    file = TensorFile(path)
    check_lm(file, config)
    with torch.device("meta"):  # no second copy of the weights
        lm = LM(config.lm())
    targets, used = lm.state_dict(), sources(config)
    empty = {name for name, target in targets.items() if target.numel() == 0}
    assert used.keys() == targets.keys() - empty
    read = functools.lru_cache(maxsize=1)(file.read)
    for name, source in used.items():
        tensor = source.convert(*(read(n, shape) for n, shape in source.tensors.items()))
        assert tensor.shape == targets[name].shape, name
        # A part of a larger tensor would keep all of it.
        _assign(lm, name, tensor.to(dtype, copy=True, memory_format=torch.contiguous_format))
    for name in empty:
        _assign(lm, name, torch.empty(targets[name].shape, dtype=dtype))
    lm.rope_frequencies = rope_frequencies(lm.config.head_dim, lm.config.rope_base)
    return lm.eval()


def _assign(lm: LM, name: str, tensor: torch.Tensor) -> None:
    owner, _, last = name.rpartition(".")
    lm.get_submodule(owner).register_parameter(last, nn.Parameter(tensor, requires_grad=False))
