"""The NF4 linear layer in Triton."""
# Triton ships without types, and the arguments of its kernels are pointers and numbers:
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# ruff: noqa: ANN001, ANN201, ANN202, D103, PLR0913, PLR0917

from __future__ import annotations

import struct

import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]

from kernels.nf4.reference import LEVELS

SUPER = tl.constexpr(256)


def _lookup_asm() -> str:
    bits = [struct.unpack("<I", struct.pack("<f", level))[0] for level in LEVELS]
    table = "".join(
        f"setp.eq.u32 here, lane, {lane}; selp.b32 level, {value:#x}, level, here; "
        for lane, value in enumerate(bits)
    )
    return (
        "{ .reg .pred here; .reg .b32 lane, level; "
        f"mov.u32 lane, %laneid; and.b32 lane, lane, 15; mov.b32 level, 0; {table}"
        "shfl.sync.idx.b32 $0, level, $1, 31, 0xffffffff; }"
    )


_LOOKUP = tl.constexpr(_lookup_asm())


@triton.jit
def _level(index):
    return tl.inline_asm_elementwise(
        _LOOKUP, "=f,r", [index], dtype=tl.float32, is_pure=True, pack=1
    )


@triton.jit
def linear_kernel(
    x_ptr,
    words_ptr,
    scale_ptr,
    code_ptr,
    coarse_ptr,
    offset,
    y_ptr,
    M,
    N,
    num_super,
    num_blocks,
    x_stride_m,
    words_stride_n,
    scale_stride_n,
    y_stride_m,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    IS_NESTED: tl.constexpr,
    DOT: tl.constexpr,
    STAGES: tl.constexpr,
):
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    m = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    split = tl.program_id(2)
    num_splits = tl.num_programs(2)
    safe_n = tl.minimum(n, N - 1).to(tl.int64)
    safe_m = tl.minimum(m, M - 1).to(tl.int64)
    i = tl.arange(0, 32)
    w_ptrs = words_ptr + safe_n[None, :] * words_stride_n + i[:, None]
    x_ptrs = x_ptr + safe_m[:, None] * x_stride_m + i[None, :]
    s_ptrs = scale_ptr + safe_n * scale_stride_n
    first_block = safe_n * num_blocks
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    begin = num_super * split // num_splits
    end = num_super * (split + 1) // num_splits
    for s in tl.range(begin, end, num_stages=STAGES):
        w = tl.load(w_ptrs + s * 32)
        for b in tl.static_range(4):
            tile = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
            for h in tl.static_range(2):
                j = 2 * b + h
                x = tl.load(x_ptrs + (s * 256 + j * 32))
                wt = _level(w >> (4 * j)).to(DOT)
                tile = tl.dot(x, wt, tile)
            if IS_NESTED:
                fine = tl.load(s_ptrs + (s * 4 + b))
                coarse = tl.load(coarse_ptr + ((first_block + s * 4 + b) >> 8))
                scale = tl.load(code_ptr + fine.to(tl.int32)) * coarse + offset
            else:
                scale = tl.load(s_ptrs + (s * 4 + b))
            acc += tile * scale[None, :]
    tl.store(
        y_ptr + m[:, None].to(tl.int64) * y_stride_m + n[None, :],
        acc.to(y_ptr.dtype.element_ty),
        mask=(m[:, None] < M) & (n[None, :] < N),
    )
