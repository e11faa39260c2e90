"""What of the attention kernels is compiled ahead of time: a 7B's heads, and grouped ones."""

from __future__ import annotations

import torch

from kernels.aot import CompileCase
from kernels.aot_launch import launched
from kernels.attention import kernel

_HEAD_DIM, _PAGE_SIZE, _PAGES_PER_SLOT, _NUM_PAGES, _NUM_SPANS = 128, 64, 48, 4000, 3


def _cases(name: str, q_len: int, kv_heads: int, *, is_int8: bool) -> tuple[CompileCase, ...]:
    rows, heads = 16, 32

    def meta(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    pages = meta(
        _NUM_PAGES,
        kv_heads,
        _PAGE_SIZE,
        _HEAD_DIM,
        dtype=torch.int8 if is_int8 else torch.bfloat16,
    )
    scale = meta(_NUM_PAGES, kv_heads, _PAGE_SIZE, dtype=torch.float16) if is_int8 else None
    split = "split_one" if q_len * heads == kv_heads else "split_many"
    return launched(
        f"attention/{name}",
        lambda: kernel.paged_attention(
            meta(rows, q_len, heads, _HEAD_DIM),
            pages,
            pages,
            meta(rows, _PAGES_PER_SLOT, dtype=torch.int32),
            meta(rows, q_len, _NUM_SPANS, 2, dtype=torch.int32),
            _HEAD_DIM**-0.5,
            scale,
            scale,
        ),
        # Entries of the cache that a turn of the loop reads; parts that a combine reads.
        {split: 2 * kernel.BLOCK_N * _HEAD_DIM, "combine": 16 * _HEAD_DIM},
    )


CASES = (
    *_cases("bf16", 1, 32, is_int8=False),
    *_cases("int8", 1, 32, is_int8=True)[:1],
    *_cases("grouped bf16", 1, 8, is_int8=False)[:1],
    *_cases("grouped int8", 1, 8, is_int8=True)[:1],
    *_cases("steps bf16", 16, 32, is_int8=False)[:1],
    *_cases("steps int8", 16, 32, is_int8=True)[:1],
)
