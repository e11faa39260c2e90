"""What of sampling is compiled ahead of time: a 7B's codes and text."""

from __future__ import annotations

import torch

from kernels.aot import CompileCase
from kernels.aot_launch import launched
from kernels.sampling import kernel

_ROWS = 16


def _cases(name: str, vocab: int, top_k: int | None) -> tuple[CompileCase, ...]:
    def meta(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    noise = None if top_k is None else meta(_ROWS, top_k)
    units = {"draw": kernel.BLOCK}  # logits of a program
    if vocab > kernel.BLOCK:
        units = {"put_forward": kernel.BLOCK, "draw": vocab // kernel.BLOCK}
    return launched(
        f"sampling/{name}",
        lambda: kernel.sample_tokens(
            meta(_ROWS, vocab, dtype=torch.bfloat16), meta(_ROWS), noise, None
        ),
        units,
    )


CASES = (
    *_cases("2048 top 250", 2048, 250),
    *_cases("32000 top 25", 32000, 25),
    *_cases("32000 greedy", 32000, None),
)
