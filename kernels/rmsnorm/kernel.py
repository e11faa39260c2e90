"""RMSNorm in Triton: a program a row, the whole row in registers.

    total = x + residual
    y     = total / sqrt(mean(total^2) + eps) * weight

Source: Zhang and Sennrich 2019, "Root mean square layer normalization", equation 4.
"""
# Triton ships without types, and the arguments of its kernels are pointers and numbers:
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# ruff: noqa: ANN001, ANN202, PLR0913, PLR0917

from __future__ import annotations

import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor

# A worked example. x = [1, 2], residual = [2, 2], eps = 0, weight = [1, 10]:
#
#     total = [3, 4]    mean square (9 + 16) / 2 = 12.5    rsqrt 0.2828
#     y     = [3 * 0.2828 * 1, 4 * 0.2828 * 10] = [0.849, 11.31]
#
# `total` is stored too: it is the residual of the next layer. Addition and norm one after the other
# would write it and read it again. Lanes beyond `dim` hold zeros, which add nothing to the sum.

MAX_DIM = 16384  # a row of this width takes 64 registers of each of its 512 threads


@triton.jit
def _rms_norm(
    x_ptr,
    residual_ptr,
    weight_ptr,
    y_ptr,
    total_ptr,
    x_stride,
    residual_stride,
    dim,
    eps,
    BLOCK: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
):
    """Add and normalise one row, in fp32."""
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)  # [D]
    mask = i < dim  # [D]
    x = tl.load(x_ptr + row * x_stride + i, mask, 0.0).to(tl.float32)  # [D]
    weight = tl.load(weight_ptr + i, mask, 0.0).to(tl.float32)  # [D]
    if HAS_RESIDUAL:
        x += tl.load(residual_ptr + row * residual_stride + i, mask, 0.0).to(tl.float32)
        # What is normalised is what the next layer will add to: rounded as it is stored.
        total = x.to(total_ptr.dtype.element_ty)  # [D]
        tl.store(total_ptr + row * dim + i, total, mask)
        x = total.to(tl.float32)
    mean_square = tl.sum(x * x, 0) / dim
    y = x * tl.rsqrt(mean_square + eps) * weight  # [D]
    tl.store(y_ptr + row * dim + i, y.to(y_ptr.dtype.element_ty), mask)


def rms_norm(
    x: Tensor, weight: Tensor, eps: float, residual: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Launch; arguments as `kernels.rmsnorm.op.rms_norm`."""
    dim = x.shape[-1]
    rows = x.reshape(-1, dim)  # [R, D]
    rows = rows if rows.stride(1) == 1 else rows.contiguous()
    added = rows
    if residual is not None:
        added = residual.reshape(-1, dim)
        added = added if added.stride(1) == 1 else added.contiguous()
    y = x.new_empty(x.shape)
    total = x if residual is None else x.new_empty(x.shape)
    block = triton.next_power_of_2(dim)
    _rms_norm[(len(rows),)](
        rows,
        added,
        weight.contiguous(),
        y,
        total,
        rows.stride(0),
        added.stride(0),
        dim,
        eps,
        BLOCK=block,
        HAS_RESIDUAL=residual is not None,
        num_warps=min(max(block // 512, 1), 16),
    )
    return y, total
