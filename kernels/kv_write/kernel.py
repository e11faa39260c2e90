"""Rotation and the paged write in Triton: a program some heads of one step.

One launch in the place of some ten small ones: split, rotate, quantise, scatter.

Each neighbouring pair (a, b) of a query or key is turned by its angle t; values are left alone:

    a' = a cos t - b sin t
    b' = a sin t + b cos t

Int8 pages take levels l = round(x / s) with a scale s = max|x| / 127 for each head of each step.

Source: Su et al. 2021, "RoFormer", equation 34 (rotation); Kwon et al. 2023, "Efficient memory
management for large language model serving with PagedAttention", section 4.1 (pages).
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

# A worked example. 2 heads of queries and 1 of keys and values, 4 wide; pages hold 16 steps; the
# step goes to place 37 = 2 * 16 + 5, which is entry 5 of page 2:
#
#     qkv = [[1, 0, 0, 2],    query 0
#            [0, 3, 0, 0],    query 1
#            [2, 0, 0, 1],    key
#            [5, 5, 5, 5]]    value
#     angles of the two pairs: 90 degrees (cos 0, sin 1) and 0 degrees (cos 1, sin 0)
#
# The first pair (a, b) becomes (-b, a), the second stays. So query 0 becomes [0, 1, 0, 2] and goes
# to `q`, the key becomes [0, 2, 0, 1] and goes to k_pages[2, 0, 5], and the value goes to
# v_pages[2, 0, 5] as it is. One program does up to BLOCK_H heads of one step; the heads of a block
# may be of all three kinds, and each is stored where a mask lets it.
#
# In int8 the key has the scale 2 / 127, stored as fp16, which is a little less. Its levels are
# [0, 127, 0, 64]: 1 divided by that scale is 63.504.

# Added and taken away again, it leaves an fp32 of magnitude below 2**22 rounded half to even.
_ROUNDER = tl.constexpr(1.5 * 2.0**23)
BLOCK_H = 8  # heads


@triton.jit
def _store(x, pages_ptr, scale_ptr, offset, scale_offset, d, mask, IS_INT8: tl.constexpr):
    """Store `x: [H, D]`, fp32 values of the incoming type, at the heads' offsets."""
    at = pages_ptr + offset[:, None] + d[None, :]  # [H, D]
    if IS_INT8:
        scale = tl.div_rn(tl.max(tl.abs(x), 1), 127.0).to(tl.float16)  # [H]
        divisor = scale.to(tl.float32)  # [H]
        divisor = tl.where(divisor == 0.0, float("inf"), divisor)  # too small for a scale: zeros
        levels = tl.div_rn(x, tl.broadcast_to(divisor[:, None], x.shape))  # [H, D]
        levels = (levels + _ROUNDER) - _ROUNDER  # [H, D]
        levels = tl.minimum(tl.maximum(levels, -127.0), 127.0)  # [H, D]
        tl.store(at, levels.to(tl.int8), mask)
        is_head = tl.max(mask.to(tl.int32), 1) > 0  # [H]
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
    """Rotate and store some heads of one step: queries to `q`, keys and values to their pages."""
    at = tl.program_id(0).to(tl.int64)
    row, step = at // steps, at % steps
    head = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)  # [H]
    d = tl.arange(0, BLOCK_D)  # [D]
    in_head = d < HEAD_DIM  # [D]
    mask = (head < HEADS + 2 * KV_HEADS)[:, None] & in_head[None, :]  # [H, D]
    x_at = row * qkv_row + step * qkv_step + head.to(tl.int64) * qkv_head  # [H]
    stored = tl.load(qkv_ptr + x_at[:, None] + d[None, :], mask, 0.0)  # [H, D]
    x = stored.to(tl.float32)

    # The angles of a step are shared by all heads. Even places hold cosines, odd ones sines, as a
    # complex number lies in memory; the same split takes the pairs of `x` apart.
    rope = tl.load(rope_ptr + row * rope_row + step * rope_step + d, in_head, 0.0)  # [D]
    cos, sin = tl.split(tl.reshape(rope, [BLOCK_D // 2, 2]))  # [D / 2], [D / 2]
    a, b = tl.split(tl.reshape(x, [BLOCK_H, BLOCK_D // 2, 2]))  # [H, D / 2] each
    cos, sin = cos[None, :], sin[None, :]  # [1, D / 2] each
    rotated = tl.reshape(tl.join(a * cos - b * sin, a * sin + b * cos), [BLOCK_H, BLOCK_D])

    is_query, is_key = head < HEADS, (head >= HEADS) & (head < HEADS + KV_HEADS)
    # Rounded as the incoming type stores it, also where it goes on to be quantised.
    rotated = rotated.to(q_ptr.dtype.element_ty)  # [H, D]
    q_at = q_ptr + (at * HEADS + head)[:, None] * HEAD_DIM + d[None, :]  # [H, D]
    tl.store(q_at, rotated, is_query[:, None] & in_head[None, :])

    # Heads that are no keys have a key number out of range here; their stores are masked.
    place = tl.load(places_ptr + at).to(tl.int64)
    page, within = place // PAGE_SIZE, place % PAGE_SIZE
    key = (head - HEADS).to(tl.int64)  # [H]
    value = key - KV_HEADS  # [H]
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
    is_value = (value >= 0) & (value < KV_HEADS)  # [H]
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
    q = qkv.new_empty((rows, steps, heads, head_dim))  # [R, T, H, D]
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
