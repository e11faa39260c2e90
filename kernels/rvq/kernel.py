"""The residual search in Triton: one launch a level, each level spread over the whole device.

For each level l, with left[0] = x:

    code[l]     = argmin over e of |left[l] - table[l, e]|^2
                = argmax over e of left[l] . table[l, e] - |table[l, e]|^2 / 2
    left[l + 1] = left[l] - table[l, code[l]]

Why not all levels in one program, and what a launch does: README.md beside this file.

Source: Zeghidour et al. 2021, "SoundStream", algorithm 1 (residual vector quantisation).
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

# A worked example. One row x = [3, 1], two levels of two entries each:
#
#     table[0] = [[2, 0], [0, 2]]    half norms 2, 2
#     table[1] = [[1, 1], [1, 0]]    half norms 1, 0.5
#
#     launch 0   scores 6 - 2 = 4 and 2 - 2 = 0                  best: entry 0, score 4
#     launch 1   takes entry 0 away: left = [1, 1], code[0] = 0;
#                scores 2 - 1 = 1 and 1 - 0.5 = 0.5              best: entry 0, score 1
#     launch 2   code[1] = 0, and nothing is left to search
#
# So x is coded as (0, 0) and decoded as [2, 0] + [1, 1] = [3, 1]. With BLOCK_C = 1 each entry is a
# block of its own, and two programs search a level side by side; each stores its best score, and
# every program of the next launch finds the better of the two again for itself. That costs a few
# loads, and saves a wait of all programs for each other, which a launch cannot have inside.

BLOCK_N = 16  # rows that share one reading of the entries
BLOCK_C = 64  # entries that a program compares
MAX_PARTS = 256  # blocks of entries: a program reads the best of each of the level before

_LOWEST = tl.constexpr(float("-inf"))


# One compilation serves all levels but the first and the last.
@triton.jit(do_not_specialize=["level"])
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
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)  # [N]
    is_row = n < num_rows  # [N]
    n = n.to(tl.int64)
    if not IS_FIRST:
        p = tl.arange(0, BLOCK_P)  # [P]
        at = n[:, None] * NUM_PARTS + p[None, :]  # [N, P]
        is_part = is_row[:, None] & (p < NUM_PARTS)[None, :]  # [N, P]
        score = tl.load(before_score_ptr + at, is_part, _LOWEST)  # [N, P]
        # Parts are in the order of their entries, so the first of equals has the lowest code.
        best = tl.argmax(score, 1, tie_break_left=True)  # [N]
        chosen = tl.load(before_code_ptr + n * NUM_PARTS + best, is_row, 0)  # [N]
        tl.store(codes_ptr + n * num_levels + level - 1, chosen.to(tl.int64), is_row & (part == 0))
    if not IS_LAST:
        c = part * BLOCK_C + tl.arange(0, BLOCK_C)  # [C]
        is_entry = c < num_entries  # [C]
        product = tl.zeros([BLOCK_N, BLOCK_C], tl.float32)  # [N, C]
        for start in tl.static_range(0, DIM, BLOCK_D):
            d = start + tl.arange(0, BLOCK_D)  # [D]
            in_row = is_row[:, None] & (d < DIM)[None, :]  # [N, D]
            left = tl.load(x_ptr + n[:, None] * x_row + d[None, :], in_row, 0.0)  # [N, D]
            if not IS_FIRST:
                before = before_ptr + chosen.to(tl.int64)[:, None] * DIM + d[None, :]  # [N, D]
                left -= tl.load(before, in_row, 0.0)
                at = left_ptr + n[:, None] * DIM + d[None, :]  # [N, D]
                tl.store(at, left, in_row & (part == 0))
            entry = table_ptr + c.to(tl.int64)[:, None] * DIM + d[None, :]  # [C, D]
            entry = tl.load(entry, is_entry[:, None] & (d < DIM)[None, :], 0.0)  # [C, D]
            # Never tf32: it would choose other entries.
            product = tl.dot(left, tl.trans(entry), product, input_precision="ieee")  # [N, C]
        score = product - tl.load(norm_ptr + c, is_entry, 0.0)[None, :]  # [N, C]
        score = tl.where(is_entry[None, :], score, _LOWEST)  # [N, C]
        top, at = tl.max(score, 1, return_indices=True, return_indices_tie_break_left=True)
        tl.store(score_ptr + n * NUM_PARTS + part, top, is_row)
        tl.store(code_ptr + n * NUM_PARTS + part, part * BLOCK_C + at, is_row)


def nearest_codes(x: Tensor, tables: Tensor, norms: Tensor, block_c: int = BLOCK_C) -> Tensor:
    """Launch; arguments as `kernels.rvq.op.nearest_codes`, and entries that a program compares."""
    (rows, dim), (levels, entries) = x.shape, tables.shape[:2]
    x = x if x.stride(1) == 1 else x.contiguous()
    num_parts = ceil_div(entries, block_c)
    codes = x.new_empty((rows, levels), dtype=torch.int64)  # [R, L]
    # Two of each: a launch writes one while it reads what the launch before wrote.
    left = x.new_empty((2, rows, dim))  # [2, R, D]
    scores = x.new_empty((2, rows, num_parts))  # [2, R, P]
    best = x.new_empty((2, rows, num_parts), dtype=torch.int32)  # [2, R, P]
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
