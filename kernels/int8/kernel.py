"""The int8 linear layer in Triton: levels become the type of the input on their way to the product.

A level fits exactly into bf16, fp16 and fp32, so nothing is rounded before the tensor cores, and
the scale of a row comes after them, once an output, in fp32. Few rows of input wait for memory; to
keep enough of it under way, programs share a tile, each with a part of the inputs.

    y[m, n] = scale[n] * sum over k of x[m, k] * levels[n, k]

Source: Dettmers et al. 2022, "LLM.int8()" (a scale for each row of the weight); Osama et al. 2023,
"Stream-K" (programs that share the inputs of one tile, there called a fixed split).
"""
# Triton ships without types, and the arguments of its kernels are pointers and numbers:
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# ruff: noqa: ANN001, ANN201, ANN202, PLR0913, PLR0917

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor

from kernels.arithmetic import ceil_div
from kernels.int8.reference import MIN_TILE
from kernels.triton_device import is_interpreted

# A worked example. Weight 1 of a layer with 4 inputs is [0.5, -1, 0.25, 0]: its scale is 1 / 127
# and its levels are [64, -127, 32, 0] (63.5 and 31.75, rounded). For x = [1, 1, 1, 1] the sum of
# products is 64 - 127 + 32 + 0 = -31, an integer, and y = -31 / 127 = -0.244; the exact answer is
# -0.25.
#
# How a launch is divided: one row of input, 4,096 inputs, 4,096 outputs, 132 multiprocessors. Tiles
# are 16 rows x 64 outputs, so there are 64 of them with 2 warps each, and the device wants 132 * 8
# = 1,056 warps: 1,056 / (64 * 2) rounds up to 9 programs for each tile, of which 8 are allowed. A
# tile's inputs are 32 turns of 128; each of 8 programs takes 4 turns, stores what it summed, and
# counts itself in `arrived`. The one that counts last, and so finds 7 there, adds the 8 parts in
# order, and sets the counter back to 0.

_WARPS_PER_SM = 8  # that should be resident to hide the latency of memory
_MIN_TURNS = 2  # of a program: fewer would leave nothing to prefetch
_MAX_SPLITS = 8
_ALIGNMENT = 16
_TALL = 64  # rows of input from where on the weight is the left operand, which Hopper wants tall
_DOT_TYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


@dataclass(frozen=True, slots=True)
class Tiling:
    """How one launch is divided.

    Attributes:
        block_m: rows of a tile.
        block_n: outputs of a tile.
        block_k: inputs of a turn.
        num_warps: of a program.
        num_splits: programs that share a tile, each with a part of the inputs.
    """

    block_m: int
    block_n: int
    block_k: int
    num_warps: int
    num_splits: int


@triton.jit
def _store(acc, scale_ptr, y_ptr, y_stride, m, n, M, N):
    """Scale a finished tile [BLOCK_M, BLOCK_N] and store it."""
    scale = tl.load(scale_ptr + tl.minimum(n, N - 1)).to(tl.float32)  # [BLOCK_N]
    y = acc * scale[None, :]  # [BLOCK_M, BLOCK_N]
    mask = (m[:, None] < M) & (n[None, :] < N)  # [BLOCK_M, BLOCK_N]
    y_ptrs = y_ptr + m[:, None].to(tl.int64) * y_stride + n[None, :]
    tl.store(y_ptrs, y.to(y_ptr.dtype.element_ty), mask)


# Code of its own for numbers of rows that are 1, or a multiple of 16, would not be any faster.
@triton.jit(do_not_specialize=["M"])
def linear_kernel(
    x_ptr,
    levels_ptr,
    scale_ptr,
    y_ptr,
    partial_ptr,
    arrived_ptr,
    M,
    N,
    in_features,
    x_stride,
    levels_stride,
    y_stride,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    NUM_SPLITS: tl.constexpr,
    NUM_TURNS: tl.constexpr,
    NUM_STAGES: tl.constexpr,
    HAS_TAIL: tl.constexpr,
    IS_WEIGHT_FIRST: tl.constexpr,
    DOT_TYPE: tl.constexpr,
):
    """Multiply a tile of rows by a tile of weights.

    Of programs that share a tile the last to arrive adds the parts, always in the same order, and
    sets the count back: so the same input gives the same bits, and nothing has to be cleared
    between launches.
    """
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)  # [BLOCK_N]
    m = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)  # [BLOCK_M]
    split = tl.program_id(2)
    # Rows beyond the end repeat the last one and are not stored: they need no mask in the loop.
    row = tl.minimum(n, N - 1).to(tl.int64)  # [BLOCK_N]
    x_row = tl.minimum(m, M - 1).to(tl.int64)  # [BLOCK_M]
    k = tl.arange(0, BLOCK_K)  # [BLOCK_K]
    x_ptrs = x_ptr + x_row[:, None] * x_stride + k[None, :]  # [BLOCK_M, BLOCK_K]
    if IS_WEIGHT_FIRST:
        levels_ptrs = levels_ptr + row[:, None] * levels_stride + k[None, :]  # [BLOCK_N, K]
        acc = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    else:
        levels_ptrs = levels_ptr + row[None, :] * levels_stride + k[:, None]  # [K, BLOCK_N]
        acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    # The loop prefetches: while one turn is multiplied, the next NUM_STAGES - 1 are under way.
    for turn in tl.range(0, NUM_TURNS, num_stages=NUM_STAGES):
        first_k = (split * NUM_TURNS + turn) * BLOCK_K
        if HAS_TAIL:
            inside = first_k + k < in_features  # [BLOCK_K]
            x = tl.load(x_ptrs + first_k, inside[None, :], 0.0)
            if IS_WEIGHT_FIRST:
                levels = tl.load(levels_ptrs + first_k, inside[None, :], 0)
            else:
                levels = tl.load(levels_ptrs + first_k, inside[:, None], 0)
        else:
            x = tl.load(x_ptrs + first_k)
            levels = tl.load(levels_ptrs + first_k)
        weight = levels.to(DOT_TYPE)  # [N, K] or [K, N], exact
        if IS_WEIGHT_FIRST:
            acc = tl.dot(weight, tl.trans(x.to(DOT_TYPE)), acc, input_precision="ieee")
        else:
            acc = tl.dot(x.to(DOT_TYPE), weight, acc, input_precision="ieee")
    if IS_WEIGHT_FIRST:
        acc = tl.trans(acc)  # [BLOCK_M, BLOCK_N]
    if NUM_SPLITS > 1:
        SIZE: tl.constexpr = BLOCK_M * BLOCK_N
        tile = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
        at = tl.arange(0, BLOCK_M)[:, None] * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
        part_ptrs = partial_ptr + tile.to(tl.int64) * (NUM_SPLITS * SIZE) + at
        tl.store(part_ptrs + split * SIZE, acc)
        tl.debug_barrier()  # all threads' stores come before the one thread's announcement
        if tl.atomic_add(arrived_ptr + tile, 1, sem="acq_rel") == NUM_SPLITS - 1:
            total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
            for part in tl.static_range(NUM_SPLITS):
                # Not through the first-level cache, which does not see what other SMs wrote.
                total += tl.load(part_ptrs + part * SIZE, cache_modifier=".cg")
            _store(total, scale_ptr, y_ptr, y_stride, m, n, M, N)
            tl.store(arrived_ptr + tile, 0)
    else:
        _store(acc, scale_ptr, y_ptr, y_stride, m, n, M, N)


def linear(x: Tensor, levels: Tensor, scale: Tensor, arrived: Tensor | None) -> Tensor:
    """Multiply; see `kernels.int8.op.int8_linear`."""
    rows = x.reshape(-1, x.shape[-1])
    if rows.stride(1) != 1:
        rows = rows.contiguous()
    how = tiling(
        len(rows),
        (levels.shape[0], levels.shape[1]),
        _num_sms(x.device),
        num_counters=0 if arrived is None else len(arrived),
        is_small=_needs_small_tiles(x),
    )
    y = launch(rows, levels, scale, arrived, how)
    return y.view(*x.shape[:-1], len(levels))


def _needs_small_tiles(x: Tensor) -> bool:
    """Say whether a large tile would not fit into registers.

    Tensor cores do not multiply fp32 exactly, and rows that are no multiple of 16 bytes apart are
    read byte by byte.
    """
    is_dense = x.dtype == torch.float32 and not is_interpreted(x)
    return is_dense or x.shape[-1] % _ALIGNMENT != 0


def tiling(
    num_rows: int, shape: tuple[int, int], num_sms: int, *, num_counters: int, is_small: bool
) -> Tiling:
    """Choose how to divide a launch.

    Args:
        num_rows: of the input, at least 1.
        shape: outputs, inputs.
        num_sms: multiprocessors of the GPU.
        num_counters: of tiles that may be shared.
        is_small: keep to small tiles.
    """
    out_features, in_features = shape
    block_k = 128
    if is_small:
        block_m, block_n, block_k, num_warps = 16, MIN_TILE, 32, 4
    elif num_rows <= 16:
        # Large tiles read the input less often, small ones fill the GPU with fewer outputs.
        is_large = out_features >= 128 * num_sms
        block_m, block_n, num_warps = (16, 128, 4) if is_large else (16, MIN_TILE, 2)
    elif num_rows <= 32:
        block_m, block_n, num_warps = 32, MIN_TILE, 2
    elif num_rows <= 128:
        block_m, block_n, num_warps = 64, MIN_TILE, 4
    else:
        block_m, block_n, block_k, num_warps = 128, 128, 64, 8
    tiles = ceil_div(num_rows, block_m) * ceil_div(out_features, block_n)
    turns = ceil_div(in_features, block_k)
    num_splits = 1
    if tiles <= num_counters:
        wanted = ceil_div(num_sms * _WARPS_PER_SM, tiles * num_warps)
        num_splits = max(1, min(wanted, turns // _MIN_TURNS, _MAX_SPLITS))
        num_splits = ceil_div(turns, ceil_div(turns, num_splits))  # none without work
    return Tiling(block_m, block_n, block_k, num_warps, num_splits)


def launch(x: Tensor, levels: Tensor, scale: Tensor, arrived: Tensor | None, how: Tiling) -> Tensor:
    """Run the kernel.

    Args:
        x: [rows, in_features], at least one row, each contiguous.
        levels: int8 [out_features, in_features], rows contiguous.
        scale: bfloat16 [out_features].
        arrived: int32 [tiles], zeros; needed where programs share a tile.
        how: from `tiling`.

    Returns:
        [rows, out_features] of the type of `x`.
    """
    num_rows, in_features = x.shape
    out_features = len(levels)
    y = x.new_empty(num_rows, out_features)  # [rows, out_features]
    grid = (ceil_div(out_features, how.block_n), ceil_div(num_rows, how.block_m), how.num_splits)
    turns = ceil_div(in_features, how.block_k)
    num_turns = ceil_div(turns, how.num_splits)
    partial = None
    if how.num_splits > 1:
        assert arrived is not None, how
        assert len(arrived) >= grid[0] * grid[1], (how, len(arrived))
        size = grid[0] * grid[1] * how.num_splits * how.block_m * how.block_n
        partial = x.new_empty(size, dtype=torch.float32)
    linear_kernel[grid](
        x,
        levels,
        scale,
        y,
        partial,
        arrived if partial is not None else None,
        num_rows,
        out_features,
        in_features,
        x.stride(0),
        levels.stride(0),
        y.stride(0),
        BLOCK_M=how.block_m,
        BLOCK_N=how.block_n,
        BLOCK_K=how.block_k,
        NUM_SPLITS=how.num_splits,
        NUM_TURNS=num_turns,
        NUM_STAGES=3,
        HAS_TAIL=how.num_splits * num_turns * how.block_k != in_features,
        IS_WEIGHT_FIRST=how.block_m >= _TALL,
        DOT_TYPE=tl.float32 if is_interpreted(x) else _DOT_TYPES[x.dtype],
        num_warps=how.num_warps,
        num_stages=3,
    )
    return y


@cache
def _num_sms(device: torch.device) -> int:
    if device.type == "cpu":  # interpreted
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count
