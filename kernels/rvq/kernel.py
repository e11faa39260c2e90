"""The residual search in Triton: one launch a level, each level spread over the whole device.

Why not all levels in one program, and what a launch does: README.md beside this file.
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

BLOCK_N = 16  # rows that share one reading of the entries
BLOCK_C = 64  # entries that a program compares
MAX_PARTS = 256  # blocks of entries: a program reads the best of each of the level before

_LOWEST = tl.constexpr(float("-inf"))


@triton.jit(
    do_not_specialize=["level"]
)  # one compilation for all levels but the first and the last
def _level(
    x_ptr,
    left_ptr,
    table_ptr,
    before_ptr,
    norm_ptr,
    before_score_ptr,
    before_code_ptr,
    score_ptr,
    code_ptr,
    codes_ptr,
    num_rows,
    num_entries,
    num_levels,
    x_row,
    level,
    DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
    NUM_PARTS: tl.constexpr,
    BLOCK_P: tl.constexpr,
    IS_FIRST: tl.constexpr,
    IS_LAST: tl.constexpr,
):
    """Take the entries that the level before chose away from the rows, and search this level.

    Every program does the first for itself; that of the first block of entries also stores the
    codes and what is left. After the last level only the codes remain to be stored.
    """
    part = tl.program_id(1)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    is_row = n < num_rows
    n = n.to(tl.int64)
    if not IS_FIRST:
        p = tl.arange(0, BLOCK_P)
        at = n[:, None] * NUM_PARTS + p[None, :]
        is_part = is_row[:, None] & (p < NUM_PARTS)[None, :]
        score = tl.load(before_score_ptr + at, is_part, _LOWEST)
        # Parts are in the order of their entries, so the first of equals has the lowest code.
        best = tl.argmax(score, 1, tie_break_left=True)
        chosen = tl.load(before_code_ptr + n * NUM_PARTS + best, is_row, 0)
        tl.store(codes_ptr + n * num_levels + level - 1, chosen.to(tl.int64), is_row & (part == 0))
    if not IS_LAST:
        c = part * BLOCK_C + tl.arange(0, BLOCK_C)
        is_entry = c < num_entries
        product = tl.zeros([BLOCK_N, BLOCK_C], tl.float32)
        for start in tl.static_range(0, DIM, BLOCK_D):
            d = start + tl.arange(0, BLOCK_D)
            in_row = is_row[:, None] & (d < DIM)[None, :]
            left = tl.load(x_ptr + n[:, None] * x_row + d[None, :], in_row, 0.0)
            if not IS_FIRST:
                before = before_ptr + chosen.to(tl.int64)[:, None] * DIM + d[None, :]
                left -= tl.load(before, in_row, 0.0)
                at = left_ptr + n[:, None] * DIM + d[None, :]
                tl.store(at, left, in_row & (part == 0))
            entry = table_ptr + c.to(tl.int64)[:, None] * DIM + d[None, :]
            entry = tl.load(entry, is_entry[:, None] & (d < DIM)[None, :], 0.0)
            # Never tf32: it would choose other entries.
            product = tl.dot(left, tl.trans(entry), product, input_precision="ieee")
        score = product - tl.load(norm_ptr + c, is_entry, 0.0)[None, :]
        score = tl.where(is_entry[None, :], score, _LOWEST)
        top, at = tl.max(score, 1, return_indices=True, return_indices_tie_break_left=True)
        tl.store(score_ptr + n * NUM_PARTS + part, top, is_row)
        tl.store(code_ptr + n * NUM_PARTS + part, part * BLOCK_C + at, is_row)


def nearest_codes(x: Tensor, tables: Tensor, norms: Tensor, block_c: int = BLOCK_C) -> Tensor:
    """Launch; arguments as `kernels.rvq.op.nearest_codes`, and entries that a program compares."""
    (rows, dim), (levels, entries) = x.shape, tables.shape[:2]
    x = x if x.stride(1) == 1 else x.contiguous()
    num_parts = ceil_div(entries, block_c)
    codes = x.new_empty((rows, levels), dtype=torch.int64)
    # Two of each: a launch writes one while it reads what the launch before wrote.
    left = x.new_empty((2, rows, dim))
    scores = x.new_empty((2, rows, num_parts))
    best = x.new_empty((2, rows, num_parts), dtype=torch.int32)
    source, source_row = x, x.stride(0)
    for level in range(levels + 1):
        is_last = level == levels
        now, before = level % 2, (level + 1) % 2
        _level[(ceil_div(rows, BLOCK_N), 1 if is_last else num_parts)](
            source,
            left[now],
            tables[min(level, levels - 1)],
            tables[max(level - 1, 0)],
            norms[min(level, levels - 1)],
            scores[before],
            best[before],
            scores[now],
            best[now],
            codes,
            rows,
            entries,
            levels,
            source_row,
            level,
            DIM=dim,
            BLOCK_D=min(max(triton.next_power_of_2(dim), 16), 64),
            BLOCK_N=BLOCK_N,
            BLOCK_C=block_c,
            NUM_PARTS=num_parts,
            BLOCK_P=triton.next_power_of_2(num_parts),
            IS_FIRST=level == 0,
            IS_LAST=is_last,
            num_warps=8,
        )
        if level > 0:
            source, source_row = left[now], dim
    return codes
