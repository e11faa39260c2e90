"""Rotation and the paged write in Triton: a program some heads of one step.

One launch in the place of some ten small ones: split, rotate, quantise, scatter.
"""
# Triton ships without types, and the arguments of its kernels are pointers and numbers:
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# ruff: noqa: ANN001, ANN202, PLR0913, PLR0917

from __future__ import annotations

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor

from kernels.arithmetic import ceil_div

# Added and taken away again, it leaves an fp32 of magnitude below 2**22 rounded half to even.
_ROUNDER = tl.constexpr(1.5 * 2.0**23)
BLOCK_H = 8  # heads


@triton.jit
def _store(x, pages_ptr, scale_ptr, offset, scale_offset, d, mask, IS_INT8: tl.constexpr):
    """Store `x: [H, D]`, fp32 values of the incoming type, at the heads' offsets."""
    at = pages_ptr + offset[:, None] + d[None, :]
    if IS_INT8:
        scale = tl.div_rn(tl.max(tl.abs(x), 1), 127.0).to(tl.float16)
        divisor = scale.to(tl.float32)
        divisor = tl.where(divisor == 0.0, float("inf"), divisor)  # too small for a scale: zeros
        levels = tl.div_rn(x, tl.broadcast_to(divisor[:, None], x.shape))
        levels = (levels + _ROUNDER) - _ROUNDER
        levels = tl.minimum(tl.maximum(levels, -127.0), 127.0)
        tl.store(at, levels.to(tl.int8), mask)
        is_head = tl.max(mask.to(tl.int32), 1) > 0
        tl.store(scale_ptr + scale_offset, scale, is_head)
    else:
        tl.store(at, x.to(pages_ptr.dtype.element_ty), mask)


@triton.jit
def _rotate_and_write(
    qkv_ptr,
    rope_ptr,
    q_ptr,
    k_ptr,
    v_ptr,
    k_scale_ptr,
    v_scale_ptr,
    places_ptr,
    steps,
    qkv_row,
    qkv_step,
    qkv_head,
    rope_row,
    rope_step,
    k_page,
    k_head,
    k_column,
    v_page,
    v_head,
    v_column,
    scale_page,
    scale_head,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_H: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    IS_INT8: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64)
    row, step = at // steps, at % steps
    head = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    d = tl.arange(0, BLOCK_D)
    in_head = d < HEAD_DIM
    mask = (head < HEADS + 2 * KV_HEADS)[:, None] & in_head[None, :]
    x_at = row * qkv_row + step * qkv_step + head.to(tl.int64) * qkv_head
    stored = tl.load(qkv_ptr + x_at[:, None] + d[None, :], mask, 0.0)
    x = stored.to(tl.float32)

    rope = tl.load(rope_ptr + row * rope_row + step * rope_step + d, in_head, 0.0)
    cos, sin = tl.split(tl.reshape(rope, [BLOCK_D // 2, 2]))
    a, b = tl.split(tl.reshape(x, [BLOCK_H, BLOCK_D // 2, 2]))
    cos, sin = cos[None, :], sin[None, :]
    rotated = tl.reshape(tl.join(a * cos - b * sin, a * sin + b * cos), [BLOCK_H, BLOCK_D])

    is_query, is_key = head < HEADS, (head >= HEADS) & (head < HEADS + KV_HEADS)
    # Rounded as the incoming type stores it, also where it goes on to be quantised.
    rotated = rotated.to(q_ptr.dtype.element_ty)
    q_at = q_ptr + (at * HEADS + head)[:, None] * HEAD_DIM + d[None, :]
    tl.store(q_at, rotated, is_query[:, None] & in_head[None, :])

    place = tl.load(places_ptr + at).to(tl.int64)
    page, within = place // PAGE_SIZE, place % PAGE_SIZE
    key = (head - HEADS).to(tl.int64)
    value = key - KV_HEADS
    _store(
        rotated.to(tl.float32),
        k_ptr,
        k_scale_ptr,
        page * k_page + key * k_head + within * k_column,
        page * scale_page + key * scale_head + within,
        d,
        is_key[:, None] & in_head[None, :],
        IS_INT8,
    )
    is_value = (value >= 0) & (value < KV_HEADS)
    _store(
        x,
        v_ptr,
        v_scale_ptr,
        page * v_page + value * v_head + within * v_column,
        page * scale_page + value * scale_head + within,
        d,
        is_value[:, None] & in_head[None, :],
        IS_INT8,
    )


def rotate_and_write(
    qkv: Tensor,
    rope: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    places: Tensor,
    k_scale: Tensor | None,
    v_scale: Tensor | None,
) -> Tensor:
    """Launch; arguments as `kernels.kv_write.op.rotate_and_write`."""
    rows, steps, all_heads, head_dim = qkv.shape
    kv_heads, page_size = k_pages.shape[1:3]
    heads = all_heads - 2 * kv_heads
    qkv = qkv if qkv.stride(-1) == 1 else qkv.contiguous()
    angles = torch.view_as_real(rope.contiguous()).flatten(2)  # [R, T, D]
    q = qkv.new_empty((rows, steps, heads, head_dim))
    scales = (k_scale, v_scale) if k_scale is not None else (q, q)  # not touched without int8
    scale_strides = k_scale.stride()[:2] if k_scale is not None else (0, 0)
    strides = (*k_pages.stride()[:3], *v_pages.stride()[:3], *scale_strides)
    _rotate_and_write[(rows * steps, ceil_div(all_heads, BLOCK_H))](
        qkv,
        angles,
        q,
        k_pages,
        v_pages,
        *scales,
        places.contiguous(),
        steps,
        *qkv.stride()[:3],
        *angles.stride()[:2],
        *strides,
        HEADS=heads,
        KV_HEADS=kv_heads,
        HEAD_DIM=head_dim,
        BLOCK_D=triton.next_power_of_2(head_dim),
        BLOCK_H=BLOCK_H,
        PAGE_SIZE=page_size,
        IS_INT8=k_scale is not None,
        num_warps=4,
    )
    return q
