"""Gated SiLU in Triton: elementwise, a program a part of a row.

    y = silu(gate) * up,    silu(g) = g / (1 + exp(-g))

Source: Shazeer 2020, "GLU variants improve transformer", equation 6 (SwiGLU).
"""
# Triton ships without types, and the arguments of its kernels are pointers and numbers:
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor

from kernels.arithmetic import ceil_div

# A worked example. gate_up = [2, -100, 3, 5] is the gates [2, -100] and the ups [3, 5]:
#
#     g = 2:       exp(-2) = 0.135, silu = 2 * 1 / 1.135 = 1.762,           y = 5.285
#     g = -100:    exp(100) overflows fp32, so for negative gates both sides of the fraction are
#                  multiplied by exp(g): silu = g * exp(g) / (exp(g) + 1)
#
# With s = exp(-|g|), which lies in (0, 1], the fraction is 1 / (1 + s) or s / (1 + s).

BLOCK = 1024


@triton.jit
def _gated_silu(x_ptr, y_ptr, x_stride, dim, BLOCK: tl.constexpr):
    """Multiply BLOCK gated values of one row."""
    row = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    mask = i < dim  # [BLOCK]
    gate = tl.load(x_ptr + row * x_stride + i, mask, 0.0).to(tl.float32)  # [BLOCK]
    up = tl.load(x_ptr + row * x_stride + dim + i, mask, 0.0).to(tl.float32)  # [BLOCK]
    # The exponential of what is never positive cannot overflow.
    small = tl.exp(-tl.abs(gate))  # [BLOCK], in (0, 1]
    y = gate * tl.where(gate >= 0.0, 1.0, small) / (1.0 + small) * up  # [BLOCK]
    tl.store(y_ptr + row * dim + i, y.to(y_ptr.dtype.element_ty), mask)


def gated_silu(gate_up: Tensor) -> Tensor:
    """Launch; arguments as `kernels.silu.op.gated_silu`."""
    dim = gate_up.shape[-1] // 2
    rows = gate_up.reshape(-1, 2 * dim)  # [R, 2 * D]
    rows = rows if rows.stride(1) == 1 else rows.contiguous()
    y = gate_up.new_empty((*gate_up.shape[:-1], dim))
    block = min(triton.next_power_of_2(dim), BLOCK)
    _gated_silu[(len(rows), ceil_div(dim, block))](
        rows, y, rows.stride(0), dim, BLOCK=block, num_warps=4
    )
    return y
