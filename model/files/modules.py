"""Safetensors files of whole modules, their linears in NF4 or not.

An NF4 weight `W` is stored as `W.nf4` (uint8, two levels a byte) and `W.absmax` (fp32, one a block
of 64), bit for bit what bitsandbytes stores. Anything that is missing, left over, of another shape
or type, or damaged is refused by name; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from kernels.nf4 import NF4Linear, dequantize_nf4, quantize_nf4
from model.errors import WeightsError

_FLOATS = (torch.float16, torch.bfloat16, torch.float32)


def load_module(path: Path, module: nn.Module, *, is_packed: bool = False) -> None:
    """Fill a module from a file that holds exactly its tensors.

    A linear's weight may be stored in NF4. Other floating point tensors may be of any floating
    type and are converted to the module's.

    Args:
        path: safetensors file.
        module: filled in place.
        is_packed: keep NF4 weights packed, by replacing their linears, instead of dequantising.

    Raises:
        WeightsError: naming the file and the tensor, with got and expected.
    """
    tensors = read_tensors(path)
    for name, linear in list(module.named_modules()):
        if isinstance(linear, nn.Linear) and f"{name}.weight.nf4" in tensors:
            _unpack(path, tensors, module, name, is_packed=is_packed)
    # By now every packed weight was turned into what the module holds, so names and shapes can be
    # compared one to one.
    expected = module.state_dict()
    missing = sorted(expected.keys() - tensors.keys())
    left_over = sorted(tensors.keys() - expected.keys())
    for names, what in ((missing, "missing"), (left_over, "not part of this model")):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise WeightsError(f"{path}: {', '.join(names[:3])}{more}: {what}")
    for name, target in expected.items():
        _check_tensor(path, name, tensors[name], target)
        target.copy_(tensors[name])


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file of `tensors`; the same tensors give the same bytes."""
    contiguous = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    safetensors.torch.save_file(contiguous, path, metadata={"format": "pt"})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        WeightsError: if it is missing, truncated or something else.
    """
    try:
        return safetensors.torch.load_file(path)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from error
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{path}: not a whole safetensors file ({error})") from error


def pack(module: nn.Module, parts: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Return the tensors of `module`, the linears within its `parts` (by name) in NF4."""
    tensors = to_half(module.state_dict())
    for prefix, part in parts.items():
        for name, linear in part.named_modules(prefix=prefix):
            if isinstance(linear, nn.Linear):
                del tensors[f"{name}.weight"]
                packed, absmax = quantize_nf4(linear.weight)
                tensors[f"{name}.weight.nf4"] = packed
                tensors[f"{name}.weight.absmax"] = absmax
    return tensors


def _unpack(
    path: Path, tensors: dict[str, Tensor], module: nn.Module, name: str, *, is_packed: bool
) -> None:
    """Turn the NF4 tensors of one linear into what the module needs."""
    linear = module.get_submodule(name)
    assert isinstance(linear, nn.Linear)
    packed = tensors.pop(f"{name}.weight.nf4")
    absmax = tensors.pop(f"{name}.weight.absmax", None)
    if absmax is None:
        raise WeightsError(f"{path}: {name}.weight.absmax: missing")
    shape = (linear.out_features, linear.in_features)
    quantised = NF4Linear(linear.in_features, linear.out_features, backend="reference")
    _check_tensor(path, f"{name}.weight.nf4", packed, quantised.packed)
    _check_tensor(path, f"{name}.weight.absmax", absmax, quantised.absmax)
    # A worked example: a linear of 4 x 96 has 384 weights. They are 192 bytes of two levels each,
    # and 384 / 64 = 6 scales.
    if not is_packed:
        tensors[f"{name}.weight"] = dequantize_nf4(packed, absmax, shape)
        return
    module.set_submodule(name, quantised)
    tensors[f"{name}.packed"], tensors[f"{name}.absmax"] = packed, absmax


def _check_tensor(path: Path, name: str, got: Tensor, expected: Tensor) -> None:
    same_type = got.dtype == expected.dtype or (got.dtype in _FLOATS and expected.dtype in _FLOATS)
    if got.shape != expected.shape or not same_type:
        raise WeightsError(f"{path}: {name}: expected {_describe(expected)}, got {_describe(got)}")


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def to_half(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with floating point ones in fp16."""
    return {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
