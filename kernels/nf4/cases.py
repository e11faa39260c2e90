"""What of NF4's Triton kernels is compiled ahead of time."""

from __future__ import annotations

import triton.language as tl  # type: ignore[import-untyped]  # shipped without types

from kernels.aot import CompileCase
from kernels.nf4 import kernel


def _linear(
    name: str, block_m: int, block_n: int, num_warps: int, *, is_nested: bool
) -> CompileCase:
    integers = (
        "M",
        "N",
        "num_super",
        "num_blocks",
        "x_stride_m",
        "words_stride_n",
        "scale_stride_n",
        "y_stride_m",
    )
    return CompileCase(
        name=f"nf4/{name}",
        kernel=kernel.linear_kernel,
        arguments={
            "x_ptr": "*bf16",
            "words_ptr": "*i32",
            "scale_ptr": "*u8" if is_nested else "*fp32",
            "code_ptr": "*fp32",
            "coarse_ptr": "*fp32",
            "offset": "fp32",
            "y_ptr": "*bf16",
            **dict.fromkeys(integers, "i32"),
        },
        constants={
            "BLOCK_M": block_m,
            "BLOCK_N": block_n,
            "IS_NESTED": is_nested,
            "DOT": tl.bfloat16,
            "STAGES": 3,
        },
        unaligned=("M", "num_super"),
        units_per_turn=block_n * 256,
        num_warps=num_warps,
        num_stages=3,
    )


CASES = (
    _linear("linear m16 n128 nested", 16, 128, 4, is_nested=True),
    _linear("linear m16 n64 nested", 16, 64, 2, is_nested=True),
    _linear("linear m16 n128", 16, 128, 4, is_nested=False),
)
