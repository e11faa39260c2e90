"""What of the residual search is compiled ahead of time: Mimi's first, middle and last launch."""

from __future__ import annotations

import torch

from kernels.aot_launch import launched
from kernels.rvq import kernel

_DIM = 256


def _search() -> torch.Tensor:
    def meta(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.float32, device="meta")

    return kernel.nearest_codes(meta(16, _DIM), meta(7, 2048, _DIM), meta(7, 2048))


# Multiplications of a program, all of them outside of any loop.
CASES = launched("rvq/mimi", _search, {"level": kernel.BLOCK_N * kernel.BLOCK_C * _DIM})
