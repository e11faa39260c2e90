"""Counted noise in Triton: a program a part of a row, four numbers for each count."""
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

BLOCK = 256  # counts of a program


@triton.jit
def _exponential(bits):
    return -tl.log(((bits >> 9).to(tl.float32) + 0.5) * 1.1920928955078125e-07)  # 2^-23


@triton.jit
def _exponential_noise(
    keys_ptr, steps_ptr, noise_ptr, key_stride, step_stride, width, stream, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    key = tl.load(keys_ptr + row * key_stride)
    step = tl.load(steps_ptr + row * step_stride)
    block = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    zero = tl.zeros_like(block)
    low, high = (step & 0xFFFFFFFF).to(tl.uint32), ((step >> 32) & 0xFFFFFFFF).to(tl.uint32)
    a, b, c, d = tl.philox(key, block, zero + stream, zero + low, zero + high)
    at = noise_ptr + row * width + 4 * block
    tl.store(at, _exponential(a), 4 * block < width)
    tl.store(at + 1, _exponential(b), 4 * block + 1 < width)
    tl.store(at + 2, _exponential(c), 4 * block + 2 < width)
    tl.store(at + 3, _exponential(d), 4 * block + 3 < width)


def exponential_noise(keys: Tensor, steps: Tensor, shape: Sequence[int], stream: int) -> Tensor:
    """Launch; arguments as `kernels.noise.op.exponential_noise`."""
    width = math.prod(shape)
    noise = torch.empty((len(keys), *shape), dtype=torch.float32, device=keys.device)
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
