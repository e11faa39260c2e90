"""The NF4 linear layer in Triton; README.md derives the layout and counts the instructions.

Up to a number of rows that depends on the GPU, the weight is looked up in registers and multiplied
on the tensor cores as it streams by. Beyond, it is written out once and multiplied by cuBLAS.

    y[m, n] = sum over blocks b of scale[n, b] * (sum over k in b of x[m, k] * LEVELS[index[n, k]])
    gated:  y[m, n] = silu(gate[m, n]) * up[m, n]

Source: Dettmers et al. 2023, "QLoRA", section 3 (NF4, double quantisation); Shazeer 2020, "GLU
variants improve transformer", equation 6 (the gate); Osama et al. 2023, "Stream-K" (programs that
share the inputs of one tile, there called a fixed split).
"""
# Triton ships without types, and the arguments of its kernels are pointers and numbers:
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# ruff: noqa: ANN001, ANN201, ANN202, PLR0913, PLR0917

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor

from kernels.arithmetic import ceil_div
from kernels.nf4.layout import BLOCKS, PLANE, SUPER_BLOCK, PlanarWeight
from kernels.nf4.reference import BLOCK_SIZE, LEVELS, NESTED_BLOCK_SIZE

# A worked example: one row of input, 1,024 inputs, so 4 super-blocks of 256 a row of the weight.
#
#     for each super-block         load 32 words of each of the tile's weights, once
#       for each block 0 to 3      planes 2b and 2b + 1 of those words
#         words >> 8b              32 indices: look up, multiply with inputs 64b to 64b + 31
#         words >> 8b + 4          32 more: look up, multiply with inputs 64b + 32 to 64b + 63
#         acc += dots * scale[b]   once for 64 products
#
# (The inputs are counted within the super-block.) With two splits, program 0 takes super-blocks 0
# and 1 and program 1 takes 2 and 3; both leave their sums in `partial`, and the one that arrives
# last adds them.
#
# Nested scales: block 300 of the weight at rest has the byte 17 and the coarse scale of block
# 300 >> 8 = 1, so its scale is code[17] * coarse[1] + offset.

_MAX_ROWS = 256  # of one launch of the fused kernel; the counters of a weight are made for them

_TALL = 64  # rows of input from where on the weight is the left operand
_WARPS_PER_SM = 8  # that should be resident to hide the latency of lookups
_MIN_SUPER_BLOCKS = 2  # of a program: fewer would leave nothing to prefetch
_MAX_SPLITS = 8


@dataclass(frozen=True, slots=True)
class Gpu:
    """What decides how a product is done.

    Attributes:
        num_sms: multiprocessors.
        write_out_from: from how many rows on it is faster to write the weight out and call cuBLAS.
        has_tall_tiles: tiles of 64 rows fit into the registers.
    """

    num_sms: int
    write_out_from: int
    has_tall_tiles: bool


# By compute capability. Rows are where bitsandbytes, which has the same choice to make, switches
# for large layers. For 8.0 ptxas cannot keep tiles of 64 rows in registers.
_WRITE_OUT_FROM = {(8, 0): 129, (8, 6): 257, (8, 9): 257}
_WRITE_OUT_FROM_ELSE = 65  # Hopper, whose fastest instructions Triton feeds from shared memory only
_WITHOUT_TALL_TILES = ((8, 0),)


@dataclass(frozen=True, slots=True)
class Tiling:
    """How one launch is divided.

    Attributes:
        block_m: rows of a tile.
        block_n: outputs of a tile.
        num_warps: of a program.
        num_splits: programs that share a tile, each with a part of the inputs.
    """

    block_m: int
    block_n: int
    num_warps: int
    num_splits: int

    @property
    def is_weight_first(self) -> bool:
        """Whether the weight is the left operand of the tensor cores, which Hopper wants tall."""
        return self.block_m >= _TALL


def _lookup() -> str:
    """Write the lookup of a level in PTX.

    Lane `l` of a warp holds level `l mod 16`, and a shuffle fetches it. The shuffle looks at the
    low five bits of its index, so the nibble needs no mask. What a lane holds is chosen by the bits
    of its number, the highest first; all but the shuffle is the same for every weight, and ptxas
    does it once.
    """
    steps = [f"and.b32 bit, lane, {bit}; setp.ne.u32 p{bit}, bit, 0; " for bit in (1, 2, 4, 8)]
    names = [f"0x{struct.unpack('<I', struct.pack('<f', level))[0]:08x}" for level in LEVELS]
    for bit in (8, 4, 2, 1):
        halves = zip(names[bit:], names[:bit], strict=True)
        steps += [f"selp.b32 l{i}, {high}, {low}, p{bit}; " for i, (high, low) in enumerate(halves)]
        names = [f"l{i}" for i in range(bit)]
    return (
        "{ .reg .pred p1, p2, p4, p8; .reg .b32 lane, bit, l<8>; mov.u32 lane, %laneid; "
        f"{''.join(steps)}shfl.sync.idx.b32 $0, l0, $1, 31, 0xffffffff; }}"
    )


_LOOKUP = tl.constexpr(_lookup())
_PLANE = tl.constexpr(PLANE)
_SUPER = tl.constexpr(SUPER_BLOCK)
_BLOCKS = tl.constexpr(BLOCKS)
_NESTED_SHIFT = tl.constexpr(NESTED_BLOCK_SIZE.bit_length() - 1)


@triton.jit
def _level(words, levels_ptr, PLANE_INDEX: tl.constexpr):
    """Look up the levels of one plane of words, float32."""
    index = words >> (4 * PLANE_INDEX)  # [K, N] or [N, K], low nibbles
    if levels_ptr is not None:  # the interpreter cannot run PTX
        level = tl.load(levels_ptr + (index & 15))
    else:
        # It has to be a function of the word alone: only then does Triton look up in the layout of
        # the tensor cores' operand, instead of moving every level there through shared memory.
        level = tl.inline_asm_elementwise(
            _LOOKUP, "=f,r", [index], dtype=tl.float32, is_pure=True, pack=1
        )
    return level


@triton.jit
def _scale(scales_ptrs, code_ptr, coarse_ptr, offset, flat_block, block):
    """Load the scales of one block of each row, float32.

    Source: Dettmers et al. 2023, "QLoRA", section 3, double quantisation.
    """
    fine = tl.load(scales_ptrs + block)  # [N]
    if code_ptr is None:
        scale = fine
    else:
        coarse = tl.load(coarse_ptr + ((flat_block + block) >> _NESTED_SHIFT))  # [N]
        scale = tl.load(code_ptr + fine.to(tl.int32)) * coarse + offset  # [N]
    return scale


@triton.jit
def _row_at_rest(n, N, IS_GATED: tl.constexpr):
    """Return which row of the weight at rest a row is, where gates and ups alternate here."""
    if IS_GATED:
        n = n // 2 + (n % 2) * (N // 2)
    return n


@triton.jit
def _finish(acc, y_ptr, y_stride, m, first_n, M, N, IS_GATED: tl.constexpr):
    """Store a finished tile [BLOCK_M, BLOCK_N]; of a gated one `silu(gate) * up`."""
    BLOCK_M: tl.constexpr = acc.shape[0]
    BLOCK_N: tl.constexpr = acc.shape[1]
    y_row = y_ptr + m[:, None].to(tl.int64) * y_stride  # [M, 1]
    if IS_GATED:
        gate, up = tl.split(acc.reshape(BLOCK_M, BLOCK_N // 2, 2))  # [M, N / 2] each
        decay = tl.exp(-tl.abs(gate))  # never overflows
        value = gate * tl.where(gate < 0, decay, 1.0) / (1.0 + decay) * up  # [M, N / 2]
        n = first_n // 2 + tl.arange(0, BLOCK_N // 2)  # [N / 2]
        mask = (m[:, None] < M) & (n[None, :] < N // 2)  # [M, N / 2]
    else:
        value = acc
        n = first_n + tl.arange(0, BLOCK_N)  # [N]
        mask = (m[:, None] < M) & (n[None, :] < N)  # [M, N]
    tl.store(y_row + n[None, :], value.to(y_ptr.dtype.element_ty), mask)


@triton.jit
def _finish_last(
    acc,
    partial_ptr,
    arrived_ptr,
    y_ptr,
    y_stride,
    m,
    first_n,
    M,
    N,
    NUM_SPLITS: tl.constexpr,
    IS_GATED: tl.constexpr,
):
    """Leave a part of a tile for the last of the tile's programs to arrive, or be that one.

    It adds the parts, always in the same order, and sets the count back: so the same input gives
    the same bits, and nothing has to be cleared between launches.
    """
    BLOCK_M: tl.constexpr = acc.shape[0]
    BLOCK_N: tl.constexpr = acc.shape[1]
    SIZE: tl.constexpr = BLOCK_M * BLOCK_N
    tile = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    at = tl.arange(0, BLOCK_M)[:, None] * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]  # [M, N]
    part_ptrs = partial_ptr + tile.to(tl.int64) * (NUM_SPLITS * SIZE) + at
    tl.store(part_ptrs + tl.program_id(2) * SIZE, acc)
    tl.debug_barrier()  # all threads' stores come before the one thread's announcement
    num_before = tl.atomic_add(arrived_ptr + tile, 1, sem="acq_rel")
    if num_before == NUM_SPLITS - 1:
        total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for part in tl.static_range(NUM_SPLITS):
            # Not through the first-level cache, which does not see what other SMs wrote.
            total += tl.load(part_ptrs + part * SIZE, cache_modifier=".cg")
        _finish(total, y_ptr, y_stride, m, first_n, M, N, IS_GATED)
        tl.store(arrived_ptr + tile, 0)


@triton.jit
def linear_kernel(
    x_ptr,
    words_ptr,
    scales_ptr,
    code_ptr,
    coarse_ptr,
    offset_ptr,
    levels_ptr,
    y_ptr,
    partial_ptr,
    arrived_ptr,
    M,
    N,
    in_features,
    num_blocks,
    num_super,
    x_stride,
    words_stride,
    scales_stride,
    y_stride,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    NUM_SPLITS: tl.constexpr,
    NUM_TURNS: tl.constexpr,
    NUM_STAGES: tl.constexpr,
    IS_GATED: tl.constexpr,
    HAS_TAIL: tl.constexpr,
    IS_WEIGHT_FIRST: tl.constexpr,
):
    """Multiply a tile of rows by a tile of weights.

    Widths and strides are arguments although one would follow from another: Triton copies 16 bytes
    at a time only where it knows that an argument is a multiple of 16.
    """
    first_n = tl.program_id(0) * BLOCK_N
    n = first_n + tl.arange(0, BLOCK_N)  # [N]
    m = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)  # [M]
    # Rows beyond the end repeat the last one and are not stored: no mask is needed in the loop.
    safe_n = tl.minimum(n, N - 1)
    row = safe_n.to(tl.int64)  # [N]
    x_row = tl.minimum(m, M - 1).to(tl.int64)  # [M]
    k = tl.arange(0, _PLANE)  # [32]
    x_ptrs = x_ptr + x_row[:, None] * x_stride + k[None, :]  # [M, 32]
    scales_ptrs = scales_ptr + row * scales_stride
    flat_block = _row_at_rest(safe_n, N, IS_GATED) * num_blocks
    offset = 0.0
    if offset_ptr is not None:
        offset = tl.load(offset_ptr)
    if IS_WEIGHT_FIRST:
        words_ptrs = words_ptr + row[:, None] * words_stride + k[None, :]  # [N, 32]
        acc = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    else:
        words_ptrs = words_ptr + row[None, :] * words_stride + k[:, None]  # [32, N]
        acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    # The interpreter takes bf16 for integers in arithmetic, so there everything is fp32.
    DOT: tl.constexpr = x_ptr.dtype.element_ty if levels_ptr is None else tl.float32

    split = tl.program_id(2)
    last_k = tl.minimum((split + 1) * NUM_TURNS * _SUPER, in_features)
    for turn in tl.range(0, NUM_TURNS, num_stages=NUM_STAGES):
        s = split * NUM_TURNS + turn
        if HAS_TAIL:  # beyond the last super-block it is read again, and multiplied by zeros
            s = tl.minimum(s, num_super - 1)
        words = tl.load(words_ptrs + s * _PLANE)  # [32, N] or [N, 32]
        for block in tl.static_range(_BLOCKS):
            tile = tl.zeros_like(acc)
            for half in tl.static_range(2):
                first_k = (split * NUM_TURNS + turn) * _SUPER + (2 * block + half) * _PLANE
                if HAS_TAIL:
                    x = tl.load(x_ptrs + first_k, (first_k + k < last_k)[None, :], 0.0)
                else:
                    x = tl.load(x_ptrs + first_k)
                level = _level(words, levels_ptr, 2 * block + half).to(DOT)  # as `words`
                if IS_WEIGHT_FIRST:
                    tile = tl.dot(level, tl.trans(x.to(DOT)), tile, input_precision="ieee")
                else:
                    tile = tl.dot(x.to(DOT), level, tile, input_precision="ieee")
            # Scaling 64 products at once, in fp32: exact, and cheaper than scaling the weights.
            index = s * _BLOCKS + block
            scale = _scale(scales_ptrs, code_ptr, coarse_ptr, offset, flat_block, index)  # [N]
            acc += tile * (scale[:, None] if IS_WEIGHT_FIRST else scale[None, :])
    if IS_WEIGHT_FIRST:
        acc = tl.trans(acc)  # [M, N]
    if NUM_SPLITS > 1:
        _finish_last(
            acc, partial_ptr, arrived_ptr, y_ptr, y_stride, m, first_n, M, N, NUM_SPLITS, IS_GATED
        )
    else:
        _finish(acc, y_ptr, y_stride, m, first_n, M, N, IS_GATED)


@triton.jit
def dequantize_kernel(
    words_ptr,
    scales_ptr,
    code_ptr,
    coarse_ptr,
    offset_ptr,
    levels_ptr,
    weight_ptr,
    N,
    in_features,
    num_blocks,
    words_stride,
    scales_stride,
    BLOCK_N: tl.constexpr,
    IS_GATED: tl.constexpr,
    IS_PADDED: tl.constexpr,
):
    """Write a tile of one super-block out, rows as at rest."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)  # [N]
    s = tl.program_id(1)
    row = tl.minimum(n, N - 1).to(tl.int64)
    row_at_rest = _row_at_rest(row, N.to(tl.int64), IS_GATED)  # [N]
    k = tl.arange(0, _PLANE)  # [32]
    words = tl.load(words_ptr + row[:, None] * words_stride + (s * _PLANE + k)[None, :])
    offset = 0.0
    if offset_ptr is not None:
        offset = tl.load(offset_ptr)
    for block in tl.static_range(_BLOCKS):
        index = s * _BLOCKS + block
        scales_ptrs = scales_ptr + row * scales_stride
        flat_block = row_at_rest * num_blocks
        scale = _scale(scales_ptrs, code_ptr, coarse_ptr, offset, flat_block, index)  # [N]
        for half in tl.static_range(2):
            plane = 2 * block + half
            weight = _level(words, levels_ptr, plane) * scale[:, None]  # [N, 32]
            at_k = s * _SUPER + plane * _PLANE + k  # [32]
            mask = (n < N)[:, None]
            if IS_PADDED:
                mask &= (at_k < in_features)[None, :]
            at = row_at_rest[:, None] * in_features + at_k[None, :]  # [N, 32]
            tl.store(weight_ptr + at, weight.to(weight_ptr.dtype.element_ty), mask)


def multiply(x: Tensor, weight: PlanarWeight) -> Tensor:
    """Multiply; if the weight is gated, gate as well: see `planar_linear`, `planar_gated`."""
    rows = x.reshape(-1, weight.in_features)  # [M, K]
    if rows.stride(1) != 1:
        rows = rows.contiguous()
    gpu = _gpu(x.device)
    if len(rows) >= gpu.write_out_from:
        y = _written_out(rows, weight)
    else:
        y = launch(rows, weight, tiling(len(rows), weight, gpu))
    return y.view(*x.shape[:-1], y.shape[1])


def tiling(num_rows: int, weight: PlanarWeight, gpu: Gpu) -> Tiling:
    """Choose how to divide a launch.

    Args:
        num_rows: 1 to 256.
        weight: what to multiply by.
        gpu: that it runs on.
    """
    if num_rows <= 16:
        # Large tiles read the input less often, small ones fill the GPU with fewer outputs.
        is_large = weight.out_features >= 128 * gpu.num_sms
        block_m, block_n, num_warps = (16, 128, 4) if is_large else (16, 64, 2)
    elif num_rows <= 32 or not gpu.has_tall_tiles:
        block_m, block_n, num_warps = 32, 64, 2
    else:
        block_m, block_n, num_warps = 64, 64, 4
    tiles = ceil_div(num_rows, block_m) * ceil_div(weight.out_features, block_n)
    num_super = weight.words.shape[1] // PLANE
    wanted = ceil_div(gpu.num_sms * _WARPS_PER_SM, tiles * num_warps)
    num_splits = max(1, min(wanted, num_super // _MIN_SUPER_BLOCKS, _MAX_SPLITS))
    num_splits = ceil_div(num_super, ceil_div(num_super, num_splits))  # none without work
    return Tiling(block_m, block_n, num_warps, num_splits)


def launch(x: Tensor, weight: PlanarWeight, how: Tiling) -> Tensor:
    """Run the fused kernel.

    Args:
        x: [rows, in_features], 1 to 256 rows, each contiguous.
        weight: what to multiply by; if gated, gate as well.
        how: from `tiling`.

    Returns:
        [rows, out_features] of the type of `x`; half as wide if gated.
    """
    num_rows, width = x.shape
    assert 1 <= num_rows <= _MAX_ROWS, num_rows
    out_features = weight.out_features
    y = x.new_empty(num_rows, out_features // 2 if weight.is_gated else out_features)
    grid = (ceil_div(out_features, how.block_n), ceil_div(num_rows, how.block_m), how.num_splits)
    num_super = weight.words.shape[1] // PLANE
    num_turns = ceil_div(num_super, how.num_splits)
    partial = None
    if how.num_splits > 1:
        size = grid[0] * grid[1] * how.num_splits * how.block_m * how.block_n
        partial = x.new_empty(size, dtype=torch.float32)
    linear_kernel[grid](
        x,
        weight.words,
        weight.scales,
        weight.code,
        weight.coarse,
        weight.offset,
        _levels(x.device),
        y,
        partial,
        weight.arrived,
        num_rows,
        out_features,
        width,
        width // BLOCK_SIZE,
        num_super,
        x.stride(0),
        weight.words.stride(0),
        weight.scales.stride(0),
        y.stride(0),
        BLOCK_M=how.block_m,
        BLOCK_N=how.block_n,
        NUM_SPLITS=how.num_splits,
        NUM_TURNS=num_turns,
        NUM_STAGES=3,
        IS_GATED=weight.is_gated,
        HAS_TAIL=how.num_splits * num_turns * SUPER_BLOCK != width,
        IS_WEIGHT_FIRST=how.is_weight_first,
        num_warps=how.num_warps,
        num_stages=3,
    )
    return y


def dequantize(weight: PlanarWeight, dtype: torch.dtype) -> Tensor:
    """Write a weight out, [out_features, in_features] of `dtype`, rows as at rest."""
    shape = (weight.out_features, weight.in_features)
    dense = torch.empty(shape, dtype=dtype, device=weight.words.device)
    block_n = 32
    dequantize_kernel[(ceil_div(shape[0], block_n), weight.words.shape[1] // PLANE)](
        weight.words,
        weight.scales,
        weight.code,
        weight.coarse,
        weight.offset,
        _levels(dense.device),
        dense,
        shape[0],
        shape[1],
        shape[1] // BLOCK_SIZE,
        weight.words.stride(0),
        weight.scales.stride(0),
        BLOCK_N=block_n,
        IS_GATED=weight.is_gated,
        IS_PADDED=shape[1] % SUPER_BLOCK != 0,
        num_warps=4,
    )
    return dense


def _written_out(x: Tensor, weight: PlanarWeight) -> Tensor:
    y = F.linear(x, dequantize(weight, x.dtype))  # [M, N]
    if not weight.is_gated:
        return y
    gate, up = y.chunk(2, dim=1)  # [M, N / 2] each
    return F.silu(gate) * up


@cache
def _levels(device: torch.device) -> Tensor | None:
    """Return the table for the interpreter; on a GPU the kernel holds it in registers."""
    return torch.tensor(LEVELS) if device.type == "cpu" else None


@cache
def _gpu(device: torch.device) -> Gpu:
    if device.type == "cpu":  # interpreted
        return Gpu(num_sms=1, write_out_from=_WRITE_OUT_FROM_ELSE, has_tall_tiles=True)
    properties = torch.cuda.get_device_properties(device)
    capability = (properties.major, properties.minor)
    return Gpu(
        num_sms=properties.multi_processor_count,
        write_out_from=_WRITE_OUT_FROM.get(capability, _WRITE_OUT_FROM_ELSE),
        has_tall_tiles=capability not in _WITHOUT_TALL_TILES,
    )
