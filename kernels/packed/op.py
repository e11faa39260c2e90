"""Multiply few rows by a weight that was packed beforehand, on a CPU.

    y[m, n] = sum_k x[m, k] * w[n, k] + bias[n]

The library behind PyTorch's linear layers reads weights in blocks of its own. For one row it reads
the weights as they are. For a few rows it writes the blocks first, at every call, which costs more
than the product. Here the blocks are written once.

Source: oneDNN, developer guide, "Inner product", weights of the format `any`; PyTorch reaches it by
the operators that its compiler emits for CPUs (`torch/_inductor/mkldnn_ir.py`, `LinearUnary` and
`LinearBinary`).
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MIN_ROWS = 4
"""Rows from which on packing pays; one or two are read faster as they lie."""


@cache
def can_pack(dtype: torch.dtype) -> bool:
    """Tell whether this machine's library can multiply such weights, fast."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001 - its only name
    return dtype == torch.float32


def pack(weight: Tensor) -> Tensor:
    """Return `weight: [out_features, in_features]` as the library reads it; for nothing else."""
    assert can_pack(weight.dtype), weight.dtype
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach())  # noqa: SLF001
    return packed


def linear(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply by a packed weight.

    Args:
        x: [..., in_features] of the weight's type.
        packed: from `pack`.
        bias: [out_features], or None.

    Returns:
        [..., out_features].
    """
    rows = x.reshape(-1, x.shape[-1])
    y: Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001 - its only name
        rows, packed, bias, "none", [], ""
    )
    return y.view(*x.shape[:-1], y.shape[-1])


def scaled_linear(x: Tensor, packed: Tensor, scale: Tensor) -> Tensor:
    """Multiply by a packed weight, and each output by a number, before anything is rounded.

    Args:
        x: [..., in_features] of the weight's type.
        packed: from `pack`.
        scale: of that type as well, [rows, out_features]: the same for at least as many rows as `x`
            has, since the library takes a number for each output.

    Returns:
        [..., out_features].
    """
    rows = x.reshape(-1, x.shape[-1])
    y: Tensor = torch.ops.mkldnn._linear_pointwise.binary(  # noqa: SLF001 - its only name
        rows, scale[: len(rows)], packed, None, "mul"
    )
    return y.view(*x.shape[:-1], y.shape[-1])


class PackedLinear(nn.Linear):
    """A linear layer that also holds its weight packed, for calls of several rows.

    Where it is not for inference in fp32 on a CPU, it is an `nn.Linear`.

    Args:
        linear: whose weight and bias it takes; they must not change any more.
    """

    packed: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.register_buffer("packed", pack(linear.weight), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x: [..., in_features]` to [..., out_features]."""
        num_rows = x.numel() // max(self.in_features, 1)
        is_plain = torch.is_grad_enabled() or x.dtype != torch.float32
        if is_plain or num_rows < MIN_ROWS:
            return F.linear(x, self.weight, self.bias)
        return linear(x, self.packed, self.bias)


def use_packed(module: nn.Module) -> int:
    """Let every plain linear layer within a module be packed, in place.

    Args:
        module: on a CPU, in fp32; nothing happens to layers of other types, or where the machine's
            library cannot.

    Returns:
        How many were packed.
    """
    found = {
        name: each
        for name, each in module.named_modules()
        if type(each) is nn.Linear
        and each.weight.device.type == "cpu"
        and each.weight.dtype == torch.float32
        and can_pack(torch.float32)
    }
    for name, each in found.items():
        module.set_submodule(name, PackedLinear(each))
    return len(found)
