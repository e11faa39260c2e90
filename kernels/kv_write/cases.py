"""What of the paged write is compiled ahead of time: one step of a 7B."""

from __future__ import annotations

import torch

from kernels.aot import CompileCase
from kernels.aot_launch import launched
from kernels.kv_write import kernel


def _cases(name: str, *, is_int8: bool) -> tuple[CompileCase, ...]:
    rows, heads, head_dim, num_pages, page_size = 16, 32, 128, 4000, 64

    def meta(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    dtype = torch.int8 if is_int8 else torch.bfloat16
    pages = meta(num_pages, heads, page_size, head_dim, dtype=dtype)
    scale = meta(num_pages, heads, page_size, dtype=torch.float16) if is_int8 else None
    return launched(
        f"kv_write/{name}",
        lambda: kernel.rotate_and_write(
            meta(rows, 1, 3 * heads, head_dim),
            meta(rows, 1, 1, head_dim // 2, dtype=torch.complex64),
            pages,
            pages,
            meta(rows, 1, dtype=torch.int64),
            scale,
            scale,
        ),
        {"rotate_and_write": kernel.BLOCK_H * head_dim},
    )


CASES = (*_cases("bf16", is_int8=False), *_cases("int8", is_int8=True))
