"""Counted noise in Triton: a program a part of a row, four numbers for each count.

    noise[row, 4 b + i] = -log((philox(key[row]; b, stream, step[row])[i] >> 9) + 0.5) / 2^23)

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (Philox4x32-10);
Devroye 1986, "Non-uniform random variate generation", section II.2 (inversion).
"""
# Triton ships without types, and the arguments of its kernels are pointers and numbers:
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor

from kernels.arithmetic import ceil_div

# A worked example. A row draws 6 numbers at step 70 of stream 1: counts 0 and 1 give four each, and
# the last two are not stored.
#
#     number       0       1       2       3       4       5
#     counter   (0, 1, 70, 0)  . . . . . . . .  (1, 1, 70, 0)  . . .
#
# A counter is four parts of 32 bits: the count, the stream, and the two halves of the step. Nothing
# else enters, so the same step draws the same numbers in any batch, and again after it was taken
# back.
#
# Of 32 random bits the upper 23 choose one of 2^23 equal parts of [0, 1], and the 0.5 its middle.
# So the logarithm is never of 0, and the noise lies between -log(1 - 2^-24) = 6e-8 and -log(2^-24)
# = 16.6.

BLOCK = 256  # counts of a program


@triton.jit
def _exponential(bits):
    """Return Exp(1) noise of 32 random bits each, float32 of their shape."""
    return -tl.log(((bits >> 9).to(tl.float32) + 0.5) * 1.1920928955078125e-07)  # 2^-23


@triton.jit
def _exponential_noise(
    keys_ptr, steps_ptr, noise_ptr, key_stride, step_stride, width, stream, BLOCK: tl.constexpr
):
    """Draw the noise of BLOCK counts of one row."""
    row = tl.program_id(0).to(tl.int64)
    key = tl.load(keys_ptr + row * key_stride)
    step = tl.load(steps_ptr + row * step_stride)
    block = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    zero = tl.zeros_like(block)  # [BLOCK]
    low, high = (step & 0xFFFFFFFF).to(tl.uint32), ((step >> 32) & 0xFFFFFFFF).to(tl.uint32)
    a, b, c, d = tl.philox(key, block, zero + stream, zero + low, zero + high)  # [BLOCK] each
    at = noise_ptr + row * width + 4 * block  # [BLOCK]
    tl.store(at, _exponential(a), 4 * block < width)
    tl.store(at + 1, _exponential(b), 4 * block + 1 < width)
    tl.store(at + 2, _exponential(c), 4 * block + 2 < width)
    tl.store(at + 3, _exponential(d), 4 * block + 3 < width)


def exponential_noise(keys: Tensor, steps: Tensor, shape: Sequence[int], stream: int) -> Tensor:
    """Launch; arguments as `kernels.noise.op.exponential_noise`."""
    width = math.prod(shape)
    noise = torch.empty((len(keys), *shape), dtype=torch.float32, device=keys.device)  # [R, ...]
    counts = ceil_div(width, 4)
    block = min(triton.next_power_of_2(counts), BLOCK)
    _exponential_noise[(len(keys), ceil_div(counts, block))](
        keys,
        steps,
        noise,
        keys.stride(0),
        steps.stride(0),
        width,
        stream,
        BLOCK=block,
        num_warps=min(max(block // 64, 1), 4),
    )
    return noise
