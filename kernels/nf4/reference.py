"""The meaning of NF4, in plain PyTorch, on any device.

A weight is cut row-major into blocks of 64. A block stores its largest magnitude and, for each
weight, the index of the nearest of 16 levels of [-1, 1]. The levels are quantiles of a normal
distribution, so trained weights use all of them.

Source: Dettmers et al. 2023, QLoRA, section 3 and appendix E (levels).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK_SIZE = 64

LEVELS = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return packed levels and scales of a weight; see `kernels.nf4.op.quantize_nf4`."""
    levels = torch.tensor(LEVELS, device=weight.device)
    flat = weight.detach().reshape(-1).float()
    blocks = F.pad(flat, (0, -flat.numel() % BLOCK_SIZE)).view(-1, BLOCK_SIZE)
    absmax = blocks.abs().amax(dim=1)
    # A product with the reciprocal, as bitsandbytes has it: the last bit decides at midpoints.
    scaled = (blocks * (1.0 / absmax.clamp(min=1e-38))[:, None]).clamp(-1.0, 1.0)
    midpoints = (levels[:-1] + levels[1:]) / 2
    index = torch.bucketize(scaled.flatten()[: flat.numel()], midpoints).to(torch.uint8)
    index = F.pad(index, (0, index.numel() % 2), value=LEVELS.index(0.0))
    return (index[::2] << 4) | index[1::2], absmax


def dequantize(packed: Tensor, absmax: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the fp32 weight of packed levels; see `kernels.nf4.op.dequantize_nf4`."""
    levels = torch.tensor(LEVELS, device=packed.device)
    size = math.prod(shape)
    index = torch.stack((packed >> 4, packed & 0xF), dim=1).flatten()[:size]
    flat = F.pad(levels[index.int()], (0, -size % BLOCK_SIZE))
    return (flat.view(-1, BLOCK_SIZE) * absmax[:, None]).flatten()[:size].view(shape)


def linear(x: Tensor, packed: Tensor, absmax: Tensor, out_features: int) -> Tensor:
    """Return `x @ weight.T`, the weight dequantised to fp32 and cast to the type of `x`."""
    weight = dequantize(packed, absmax, (out_features, x.shape[-1]))
    return F.linear(x, weight.to(x.dtype))
