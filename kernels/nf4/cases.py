"""What of NF4 is compiled ahead of time: launches of a 7B's layers, and one of the starter's."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from kernels.aot import ARCHITECTURES, CompileCase
from kernels.aot_launch import launched
from kernels.arithmetic import ceil_div
from kernels.nf4 import kernel
from kernels.nf4.kernel import Tiling
from kernels.nf4.layout import BLOCKS, PLANE, SUPER_BLOCK, PlanarWeight

_NARROW, _WIDE = 64, 128
_TALL = (89, 90)  # where tiles of 64 rows are launched


def _meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _weight(
    out_features: int, in_features: int, *, is_nested: bool = True, is_gated: bool = False
) -> PlanarWeight:
    num_super = ceil_div(in_features, SUPER_BLOCK)
    return PlanarWeight(
        words=_meta(out_features, num_super * PLANE, dtype=torch.int32),
        scales=_meta(
            out_features, num_super * BLOCKS, dtype=torch.uint8 if is_nested else torch.float32
        ),
        code=_meta(256) if is_nested else None,
        coarse=_meta(out_features * in_features // 64 // 256) if is_nested else None,
        offset=_meta() if is_nested else None,
        arrived=_meta(1024, dtype=torch.int32),
        in_features=in_features,
        is_gated=is_gated,
    )


def _linear(name: str, num_rows: int, weight: PlanarWeight, how: Tiling) -> CompileCase:
    x = _meta(num_rows, weight.in_features, dtype=torch.bfloat16)
    units = {"linear_kernel": how.block_n * SUPER_BLOCK}
    case = launched(f"nf4/{name}", lambda: kernel.launch(x, weight, how), units)[0]
    return replace(case, architectures=_TALL if how.is_weight_first else ARCHITECTURES)


CASES = (
    _linear("8 rows, narrow, split", 8, _weight(4096, 11264), Tiling(16, _NARROW, 2, 4)),
    _linear("8 rows, wide", 8, _weight(12288, 4096), Tiling(16, _WIDE, 4, 1)),
    _linear(
        "8 rows, wide, gated, split",
        8,
        _weight(22528, 4096, is_gated=True),
        Tiling(16, _WIDE, 4, 2),
    ),
    _linear(
        "8 rows, wide, fp32 scales",
        8,
        _weight(12288, 4096, is_nested=False),
        Tiling(16, _WIDE, 4, 1),
    ),
    _linear(
        "8 rows, tail",
        8,
        _weight(256, 704, is_nested=False),
        Tiling(16, _NARROW, 2, 1),
    ),
    _linear("32 rows", 32, _weight(12288, 4096), Tiling(32, _NARROW, 2, 1)),
    _linear("64 rows", 64, _weight(12288, 4096), Tiling(64, _NARROW, 4, 1)),
    *launched(
        "nf4/written out",
        lambda: kernel.dequantize(_weight(12288, 4096), torch.bfloat16),
        {"dequantize_kernel": 32 * SUPER_BLOCK},
    ),
)
