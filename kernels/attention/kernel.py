"""Paged decode attention in Triton: a split kernel over chunks of columns, then a combine step.

For a query q of one head, over the columns c that it sees:

    score[c] = scale * q . k[c]
    out      = sum over c of exp(score[c]) * v[c]  /  sum over c of exp(score[c])

Layout, launch shape and derivation: README.md beside this file.

Source: Milakov and Gimelshein 2018, "Online normalizer calculation for softmax", algorithm 3 (the
running softmax); Dao et al. 2022, "FlashAttention", section 3.1 (tiles); Kwon et al. 2023,
"Efficient memory management for large language model serving with PagedAttention", section 4.1
(pages).
"""
# Triton ships without types, and the arguments of its kernels are pointers and numbers:
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# ruff: noqa: ANN001, ANN202, PLR0913, PLR0917

from __future__ import annotations

import math

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor

from kernels.arithmetic import ceil_div
from kernels.triton_device import is_interpreted

# A worked example. Pages hold 4 columns, chunks 8, and one query of one head has
#
#     table = [7, -1, 2]          columns 0-3 lie in page 7, 4-7 have no page, 8-11 lie in page 2
#     spans = [[0, 2], [9, 12]]   it sees columns 0 and 1 (a pinned prefix) and 9, 10, 11 (a ring)
#
# Two programs share the work. Column 9 is entry 9 % 4 = 1 of page table[9 // 4] = 2. Let the
# scores, in base 2, be
#
#     chunk 0 (columns 0-7):   1  3           -> sum 2 + 8 = 10,    mean0 = (2 v0 + 8 v1) / 10
#     chunk 1 (columns 8-11):  2  2  0        -> sum 4 + 4 + 1 = 9, mean1 = (4 v9 + 4 v10 + v11) / 9
#
# Each program stores its mean (`part`) and the base-2 logarithm of its sum (`lse`). `_combine` then
# weighs the means by the sums: out = (10 mean0 + 9 mean1) / 19. Columns 2-8 are never read: they
# may hold anything.
#
# The sums are kept relative to the largest score so far (`top`), so that no power overflows. When a
# larger score comes, what was summed before shrinks by 2 ** (top - new_top):
#
#     scores 1, then 3:   top 1, total 1   ->   top 3, total 1 * 2 ** (1 - 3) + 1 = 1.25
#
# and 1.25 * 2 ** 3 = 10 is the same sum as above.

# Below any score, yet finite: a difference of running maxima is then never inf - inf.
_LOWEST = tl.constexpr(-1e30)
_SMALL_CAPACITY = 1024  # columns; up to here chunks are smaller, so that a lone row still spreads
_BLOCK_M = 16  # queries of a tile: the fewest that tensor cores take; more would spill
BLOCK_N = 32  # columns of a turn of the loop: with 64, a tile of several steps spills


@triton.jit
def _locate(
    table_ptr,
    row,
    kv_head,
    first,
    last,
    seen,
    strides,
    PAGE_SIZE: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Locate the BLOCK_N columns from `first` on, by the table of one row.

    Returns int64 offsets of their keys (values lie alike) and scales, and which have a page.
    """
    table_row, page_stride, head_stride, column_stride, scale_page, scale_head = strides
    table_ptr += row.to(tl.int64) * table_row
    if PAGE_SIZE % BLOCK_N == 0:  # they share one page: one lookup, and no arithmetic a column
        page = tl.load(table_ptr + first // PAGE_SIZE, first < last, -1)
        within = first % PAGE_SIZE + tl.arange(0, BLOCK_N)  # [N]
    else:
        columns = first + tl.arange(0, BLOCK_N)  # [N]
        page = tl.load(table_ptr + columns // PAGE_SIZE, seen, -1)  # [N]
        within = columns % PAGE_SIZE  # [N]
    exists, page, head = page >= 0, page.to(tl.int64), kv_head.to(tl.int64)
    entries = page * page_stride + head * head_stride + within * column_stride  # [N]
    scales = page * scale_page + head * scale_head + within  # [N]
    return entries, scales, exists


@triton.jit
def _split_one(
    q_ptr,
    k_ptr,
    v_ptr,
    k_scale_ptr,
    v_scale_ptr,
    table_ptr,
    spans_ptr,
    out_ptr,
    part_ptr,
    lse_ptr,
    q_row,
    q_head,
    spans_row,
    table_row,
    page_stride,
    head_stride,
    column_stride,
    scale_page,
    scale_head,
    num_columns,
    score_scale,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    NUM_SPANS: tl.constexpr,
    NUM_SPLITS: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK_N: tl.constexpr,
    IS_INT8: tl.constexpr,
):
    """Attend from one query to one chunk of columns of one head, without tensor cores.

    Each of BLOCK_N lanes keeps a running softmax of its own over every BLOCK_N-th column; they
    are merged once, at the end, so that nothing crosses warps inside the loop.
    """
    head, row, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    num_heads = tl.num_programs(0)
    # Where this chunk begins and ends, narrowed to what the query sees at all.
    first, last = num_columns, 0
    spans_ptr += row.to(tl.int64) * spans_row
    for span in tl.static_range(NUM_SPANS):
        start, stop = tl.load(spans_ptr + 2 * span), tl.load(spans_ptr + 2 * span + 1)
        is_empty = start >= stop
        first = tl.minimum(first, tl.where(is_empty, num_columns, start))
        last = tl.maximum(last, tl.where(is_empty, 0, stop))
    first = tl.maximum(first, split * CHUNK)
    last = tl.minimum(tl.minimum(last, num_columns), (split + 1) * CHUNK)

    out_row = row.to(tl.int64) * num_heads + head
    d = tl.arange(0, BLOCK_D)  # [D]
    in_head = d < HEAD_DIM
    if first >= last:
        if NUM_SPLITS > 1:
            tl.store(lse_ptr + out_row * NUM_SPLITS + split, float("-inf"))
        else:
            zero = tl.zeros([BLOCK_D], tl.float32).to(out_ptr.dtype.element_ty)
            tl.store(out_ptr + out_row * HEAD_DIM + d, zero, in_head)
        return

    q = tl.load(q_ptr + row.to(tl.int64) * q_row + head.to(tl.int64) * q_head + d, in_head, 0.0)
    q = q.to(tl.float32) * score_scale  # [D]
    top = tl.full([BLOCK_N], _LOWEST, tl.float32)  # [N], one running softmax a lane
    total = tl.zeros([BLOCK_N], tl.float32)  # [N]
    mixed = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)  # [N, D]
    strides = table_row, page_stride, head_stride, column_stride, scale_page, scale_head
    for block in tl.range(0, CHUNK, BLOCK_N):
        begin = split * CHUNK + block
        columns = begin + tl.arange(0, BLOCK_N)  # [N]
        seen = columns < 0  # [N], none yet
        for span in tl.static_range(NUM_SPANS):
            start, stop = tl.load(spans_ptr + 2 * span), tl.load(spans_ptr + 2 * span + 1)
            seen = seen | ((columns >= start) & (columns < stop))
        seen = seen & (columns < last)
        entries, scales, exists = _locate(
            table_ptr, row, head, begin, last, seen, strides, PAGE_SIZE, BLOCK_N
        )
        # What is not seen is not read either: it may be anything, even NaN.
        seen = seen & exists
        mask = seen[:, None] & in_head[None, :]  # [N, D]
        k = tl.load(k_ptr + entries[:, None] + d[None, :], mask, 0).to(tl.float32)  # [N, D]
        v = tl.load(v_ptr + entries[:, None] + d[None, :], mask, 0).to(tl.float32)  # [N, D]
        score = tl.sum(k * q[None, :], 1)  # [N]
        if IS_INT8:
            score *= tl.load(k_scale_ptr + scales, seen, 0.0).to(tl.float32)
        # exp2(-inf) is 0: what is not seen adds nothing.
        score = tl.where(seen, score, float("-inf"))
        new_top = tl.maximum(top, score)  # [N]
        shrink, weight = tl.exp2(top - new_top), tl.exp2(score - new_top)
        total = total * shrink + weight  # [N]
        if IS_INT8:
            weight *= tl.load(v_scale_ptr + scales, seen, 0.0).to(tl.float32)
        mixed = mixed * shrink[:, None] + weight[:, None] * v
        top = new_top

    # The lanes meet for the first time: each is brought to the highest of their maxima.
    highest = tl.max(top, 0)
    lane = tl.exp2(top - highest)  # [N]
    sum_ = tl.sum(total * lane, 0)
    divisor = tl.where(sum_ > 0.0, sum_, 1.0)
    out = tl.sum(mixed * lane[:, None], 0) / divisor  # [D]
    if NUM_SPLITS > 1:
        lse = tl.where(sum_ > 0.0, highest + tl.log2(divisor), float("-inf"))
        tl.store(lse_ptr + out_row * NUM_SPLITS + split, lse)
        tl.store(part_ptr + (out_row * NUM_SPLITS + split) * HEAD_DIM + d, out, in_head)
    else:
        tl.store(out_ptr + out_row * HEAD_DIM + d, out.to(out_ptr.dtype.element_ty), in_head)


@triton.jit
def _limits(spans_ptr, is_query, num_columns, split, NUM_SPANS: tl.constexpr, CHUNK: tl.constexpr):
    """Return the range of a chunk's columns outside of which no query of a tile sees anything."""
    first, last = num_columns, 0
    for span in tl.static_range(NUM_SPANS):
        start = tl.load(spans_ptr + 2 * span, is_query, 0)  # [M]
        stop = tl.load(spans_ptr + 2 * span + 1, is_query, 0)  # [M]
        is_empty = start >= stop
        first = tl.minimum(first, tl.min(tl.where(is_empty, num_columns, start), 0))
        last = tl.maximum(last, tl.max(tl.where(is_empty, 0, stop), 0))
    first = tl.maximum(first, split * CHUNK)
    last = tl.minimum(tl.minimum(last, num_columns), (split + 1) * CHUNK)
    return first, last


@triton.jit
def _seen(spans_ptr, is_query, columns, NUM_SPANS: tl.constexpr):
    """Say which columns each query of a tile sees, [M, N]."""
    seen = (columns[None, :] < 0) & is_query[:, None]
    for span in tl.static_range(NUM_SPANS):
        start = tl.load(spans_ptr + 2 * span, is_query, 0)[:, None]  # [M, 1]
        stop = tl.load(spans_ptr + 2 * span + 1, is_query, 0)[:, None]  # [M, 1]
        seen = seen | ((columns[None, :] >= start) & (columns[None, :] < stop))
    return seen


@triton.jit
def _split_many(
    q_ptr,
    k_ptr,
    v_ptr,
    k_scale_ptr,
    v_scale_ptr,
    table_ptr,
    spans_ptr,
    out_ptr,
    part_ptr,
    lse_ptr,
    q_row,
    q_step,
    q_head,
    spans_row,
    spans_step,
    table_row,
    page_stride,
    head_stride,
    column_stride,
    scale_page,
    scale_head,
    num_columns,
    q_len,
    score_scale,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    NUM_SPANS: tl.constexpr,
    NUM_SPLITS: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    IS_INT8: tl.constexpr,
    DOT_TYPE: tl.constexpr,
):
    """Attend from a tile of queries (steps times the heads of a group) to one chunk of columns."""
    kv_head, tile_row, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    num_heads = tl.num_programs(0) * GROUP
    # With 2 heads in a group and 3 steps, a tile's queries are (step 0, head 0), (0, 1), (1, 0),
    # (1, 1), (2, 0), (2, 1), and the rest of its BLOCK_M rows repeat step 0 and are not stored.
    num_tiles = tl.cdiv(q_len * GROUP, BLOCK_M)
    row = tile_row // num_tiles
    m = tile_row % num_tiles * BLOCK_M + tl.arange(0, BLOCK_M)  # [M]
    step, head = m // GROUP, kv_head * GROUP + m % GROUP  # [M], [M]
    is_query = step < q_len  # [M]
    step = tl.where(is_query, step, 0).to(tl.int64)

    spans_ptr += row.to(tl.int64) * spans_row + step * spans_step
    first, last = _limits(spans_ptr, is_query, num_columns, split, NUM_SPANS, CHUNK)

    d = tl.arange(0, BLOCK_D)  # [D]
    in_head = d < HEAD_DIM
    q_mask = is_query[:, None] & in_head[None, :]  # [M, D]
    out_row = (row.to(tl.int64) * q_len + step) * num_heads + head  # [M]
    if first >= last:
        if NUM_SPLITS > 1:
            empty = tl.full([BLOCK_M], float("-inf"), tl.float32)
            tl.store(lse_ptr + out_row * NUM_SPLITS + split, empty, is_query)
        else:
            zero = tl.zeros([BLOCK_M, BLOCK_D], tl.float32).to(out_ptr.dtype.element_ty)
            tl.store(out_ptr + out_row[:, None] * HEAD_DIM + d[None, :], zero, q_mask)
        return

    q_offset = row.to(tl.int64) * q_row + step * q_step + head.to(tl.int64) * q_head  # [M]
    q = tl.load(q_ptr + q_offset[:, None] + d[None, :], q_mask, 0.0).to(DOT_TYPE)  # [M, D]
    top = tl.full([BLOCK_M], _LOWEST, tl.float32)  # [M]
    total = tl.zeros([BLOCK_M], tl.float32)  # [M]
    mixed = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)  # [M, D]
    strides = table_row, page_stride, head_stride, column_stride, scale_page, scale_head
    for block in tl.range(0, CHUNK, BLOCK_N):
        begin = split * CHUNK + block
        columns = begin + tl.arange(0, BLOCK_N)  # [N]
        seen = _seen(spans_ptr, is_query, columns, NUM_SPANS)  # [M, N]
        seen_by_any = (tl.max(seen.to(tl.int32), 0) > 0) & (columns < last)  # [N]
        entries, scales, exists = _locate(
            table_ptr, row, kv_head, begin, last, seen_by_any, strides, PAGE_SIZE, BLOCK_N
        )
        # What nobody sees is not read either: it may be anything, even NaN.
        seen_by_any = seen_by_any & exists
        seen = seen & seen_by_any[None, :]  # [M, N]
        mask = seen_by_any[:, None] & in_head[None, :]  # [N, D]
        k = tl.load(k_ptr + entries[:, None] + d[None, :], mask, 0).to(DOT_TYPE)  # [N, D]
        v = tl.load(v_ptr + entries[:, None] + d[None, :], mask, 0).to(DOT_TYPE)  # [N, D]
        score = tl.dot(q, tl.trans(k), input_precision="ieee") * score_scale  # [M, N]
        if IS_INT8:
            score *= tl.load(k_scale_ptr + scales, seen_by_any, 0.0).to(tl.float32)[None, :]
        # exp2(-inf) is 0: what is not seen adds nothing.
        score = tl.where(seen, score, float("-inf"))
        new_top = tl.maximum(top, tl.max(score, 1))  # [M]
        shrink, weight = tl.exp2(top - new_top), tl.exp2(score - new_top[:, None])
        total = total * shrink + tl.sum(weight, 1)  # [M]
        if IS_INT8:
            weight *= tl.load(v_scale_ptr + scales, seen_by_any, 0.0).to(tl.float32)[None, :]
        mixed = mixed * shrink[:, None]
        mixed = tl.dot(weight.to(DOT_TYPE), v, mixed, input_precision="ieee")  # [M, D]
        top = new_top

    divisor = tl.where(total > 0.0, total, 1.0)  # [M]
    out = mixed / divisor[:, None]  # [M, D]
    if NUM_SPLITS > 1:
        lse = tl.where(total > 0.0, top + tl.log2(divisor), float("-inf"))
        tl.store(lse_ptr + out_row * NUM_SPLITS + split, lse, is_query)
        part_row = out_row * NUM_SPLITS + split  # [M]
        tl.store(part_ptr + part_row[:, None] * HEAD_DIM + d[None, :], out, q_mask)
    else:
        out_ptr += out_row[:, None] * HEAD_DIM + d[None, :]
        tl.store(out_ptr, out.to(out_ptr.dtype.element_ty), q_mask)


@triton.jit
def _combine(
    part_ptr,
    lse_ptr,
    out_ptr,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NUM_SPLITS: tl.constexpr,
    BLOCK_S: tl.constexpr,
    STEP_S: tl.constexpr,
):
    """Weigh the chunks of one query's head by their sums of exponentials, in a fixed order.

    out = sum over s of 2 ** lse[s] * part[s]  /  sum over s of 2 ** lse[s]
    """
    row = tl.program_id(0).to(tl.int64)
    s, d = tl.arange(0, BLOCK_S), tl.arange(0, BLOCK_D)  # [S], [D]
    in_head = d < HEAD_DIM
    lse = tl.load(lse_ptr + row * NUM_SPLITS + s, s < NUM_SPLITS, float("-inf"))  # [S]
    highest = tl.maximum(tl.max(lse, 0), _LOWEST)
    total = tl.sum(tl.exp2(lse - highest), 0)
    out = tl.zeros([BLOCK_D], tl.float32)  # [D]
    for begin in tl.range(0, NUM_SPLITS, STEP_S):
        some = begin + tl.arange(0, STEP_S)  # [STEP_S]
        lse = tl.load(lse_ptr + row * NUM_SPLITS + some, some < NUM_SPLITS, float("-inf"))
        # An empty chunk has left its part unwritten.
        mask = (lse > _LOWEST)[:, None] & in_head[None, :]  # [STEP_S, D]
        part = (row * NUM_SPLITS + some) * HEAD_DIM  # [STEP_S]
        x = tl.load(part_ptr + part[:, None] + d[None, :], mask, 0.0)  # [STEP_S, D]
        out += tl.sum(tl.exp2(lse - highest)[:, None] * x, 0)
    out = out / tl.where(total > 0.0, total, 1.0)
    tl.store(out_ptr + row * HEAD_DIM + d, out.to(out_ptr.dtype.element_ty), in_head)


def chunk_columns(num_columns: int) -> int:
    """Return how many columns one program goes through.

    It depends on the capacity alone: a row's sums are then the same in a batch of any size.
    """
    return 128 if num_columns <= _SMALL_CAPACITY else 256


def paged_attention(
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    table: Tensor,
    spans: Tensor,
    scale: float,
    k_scale: Tensor | None,
    v_scale: Tensor | None,
    chunk: int | None = None,
) -> Tensor:
    """Launch; arguments as `kernels.attention.op.paged_attention`.

    `chunk` is how many columns a program goes through, `chunk_columns` if None. Output and partial
    sums are allocated here: a captured graph owns them, and its replays allocate nothing.
    """
    rows, q_len, heads, head_dim = q.shape
    kv_heads, page_size = k_pages.shape[1:3]
    num_columns, num_spans = table.shape[1] * page_size, spans.shape[2]
    chunk = chunk or chunk_columns(num_columns)
    # Small next to the pages, and made contiguous only if a caller cut them out of something.
    q, table, spans = _rows_contiguous(q), table.contiguous(), spans.contiguous()
    num_splits = ceil_div(num_columns, chunk)
    out = q.new_empty(q.shape)
    part, lse = out, out  # not touched by a single split
    if num_splits > 1:
        part = q.new_empty((rows, q_len, heads, num_splits, head_dim), dtype=torch.float32)
        lse = q.new_empty((rows, q_len, heads, num_splits), dtype=torch.float32)
    is_int8 = k_scale is not None and v_scale is not None
    scales = (k_scale, v_scale) if is_int8 else (q, q)  # not touched without int8
    scale_strides = k_scale.stride()[:2] if k_scale is not None else (0, 0)
    strides = (table.stride(0), *k_pages.stride()[:3], *scale_strides)
    group = heads // kv_heads
    block_d = max(triton.next_power_of_2(head_dim), _BLOCK_M)
    shared = {
        "HEAD_DIM": head_dim,
        "BLOCK_D": block_d,
        "PAGE_SIZE": page_size,
        "NUM_SPANS": num_spans,
        "NUM_SPLITS": num_splits,
        "CHUNK": chunk,
        "BLOCK_N": BLOCK_N,
        "IS_INT8": is_int8,
        "num_warps": 4,
    }
    tensors = (q, k_pages, v_pages, *scales, table, spans, out, part, lse)
    score_scale = scale * math.log2(math.e)
    if q_len * group == 1:
        _split_one[(kv_heads, rows, num_splits)](
            *tensors,
            q.stride(0),
            q.stride(2),
            spans.stride(0),
            *strides,
            num_columns,
            score_scale,
            **shared,
        )
    else:
        num_tiles = ceil_div(q_len * group, _BLOCK_M)
        dot_type = tl.float32 if is_interpreted(q) else _DOT_TYPES[q.dtype]
        _split_many[(kv_heads, rows * num_tiles, num_splits)](
            *tensors,
            *q.stride()[:3],
            *spans.stride()[:2],
            *strides,
            num_columns,
            q_len,
            score_scale,
            GROUP=group,
            BLOCK_M=_BLOCK_M,
            DOT_TYPE=dot_type,
            **shared,
        )
    if num_splits > 1:
        _combine[(rows * q_len * heads,)](
            part,
            lse,
            out,
            HEAD_DIM=head_dim,
            BLOCK_D=block_d,
            NUM_SPLITS=num_splits,
            BLOCK_S=triton.next_power_of_2(num_splits),
            STEP_S=16,
            num_warps=1,
        )
    return out


def _rows_contiguous(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


_DOT_TYPES = {
    torch.float32: tl.float32,
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
}
