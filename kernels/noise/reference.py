"""The meaning of counted noise, in plain PyTorch, on any device.

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", Philox4x32-10.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.arithmetic import ceil_div

# Source: Salmon et al. 2011, as above. The Weyl constants are the fractional parts
# of the golden ratio and of the square root of 3, in 32 bits.
_ROUNDS = 10
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85
_LOW = 0xFFFFFFFF


def philox(key: tuple[Tensor, Tensor], counter: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    """Return four random numbers for each counter.

    Args:
        key: two halves, int64 of 32 bits.
        counter: four parts, int64 of 32 bits.

    Returns:
        int64 of 32 bits, [..., 4].

    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", Philox4x32-10.
    """
    (k0, k1), (c0, c1, c2, c3) = key, counter
    for _ in range(_ROUNDS):
        # A product wraps around in 64 bits, all of which are right; its sign is shifted in.
        first, second = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1 = (second >> 32) & _LOW ^ c1 ^ k0, second & _LOW
        c2, c3 = (first >> 32) & _LOW ^ c3 ^ k1, first & _LOW
        k0, k1 = k0 + _WEYL[0] & _LOW, k1 + _WEYL[1] & _LOW
    # After a round of it every part has the whole shape.
    return torch.stack([c0, c1, c2, c3], dim=-1)


def exponential_noise(keys: Tensor, steps: Tensor, shape: Sequence[int], stream: int) -> Tensor:
    """Draw; arguments as `kernels.noise.op.exponential_noise`."""
    width = math.prod(shape)
    key, step = keys[:, None], steps[:, None]  # [R, 1] each
    block = torch.arange(ceil_div(width, 4), device=keys.device)  # [counts]
    counter = block, torch.full_like(block, stream), step & _LOW, step >> 32 & _LOW
    bits = philox((key & _LOW, key >> 32 & _LOW), counter).flatten(1)[:, :width]
    # The middle of one of 2^23 equal parts of [0, 1], which fp32 holds exactly: never 0 nor 1.
    uniform = ((bits >> 9).float() + 0.5) * 2.0**-23  # [R, width]
    return -uniform.log().view(len(keys), *shape)
