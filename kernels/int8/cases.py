"""What of the int8 linear is compiled ahead of time: launches of a 7B's layers, and odd widths."""

from __future__ import annotations

import torch

from kernels.aot import CompileCase
from kernels.aot_launch import launched
from kernels.int8 import kernel
from kernels.int8.kernel import Tiling


def _linear(
    name: str, num_rows: int, shape: tuple[int, int], how: Tiling, dtype: torch.dtype
) -> CompileCase:
    def meta(*size: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(size, dtype=dtype, device="meta")

    x, levels = meta(num_rows, shape[1], dtype=dtype), meta(*shape, dtype=torch.int8)
    scale, arrived = meta(shape[0], dtype=torch.bfloat16), meta(2048, dtype=torch.int32)
    units = {"linear_kernel": how.block_n * how.block_k}
    return launched(f"int8/{name}", lambda: kernel.launch(x, levels, scale, arrived, how), units)[0]


_BF16 = torch.bfloat16
CASES = (
    _linear("8 rows, narrow, split", 8, (4096, 11264), Tiling(16, 64, 128, 2, 8), _BF16),
    _linear("8 rows, wide", 8, (22528, 4096), Tiling(16, 128, 128, 4, 1), _BF16),
    _linear("8 rows, tail, fp16", 8, (50, 75), Tiling(16, 64, 32, 4, 1), torch.float16),
    _linear("8 rows, fp32", 8, (4096, 4096), Tiling(16, 64, 32, 4, 2), torch.float32),
    _linear("32 rows", 32, (12288, 4096), Tiling(32, 64, 128, 2, 1), _BF16),
    _linear("64 rows", 64, (12288, 4096), Tiling(64, 64, 128, 4, 1), _BF16),
    _linear("many rows", 512, (12288, 4096), Tiling(128, 128, 64, 8, 1), _BF16),
)
