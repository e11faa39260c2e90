"""The meaning of NF4, in plain PyTorch, on any device.

A weight is cut row-major into blocks of 64. A block stores its largest magnitude and, for each
weight, the index of the nearest of 16 levels of [-1, 1]. The levels are quantiles of a normal
distribution, so trained weights use all of them. Scales may be quantised in their turn, to eight
bits of a floating point whose exponent is of variable length.

Source: Dettmers et al. 2023, QLoRA, section 3 and appendix E (levels); Dettmers et al. 2022, 8-bit
optimizers via block-wise quantization, section 2.2 (dynamic tree quantisation, for scales).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK_SIZE = 64
NESTED_BLOCK_SIZE = 256  # scales that share one scale of their own
_NESTED_STEPS = 65535  # of [-1, 1]: bitsandbytes' CPU kernel rounds to one before it looks up

# A worked example. A block whose largest magnitude is 0.5 has the scale 0.5. Its weight 0.1 is 0.2
# of that; the nearest level is 0.1609, the tenth of them (index 9), and it comes back as 0.0805. So
# a weight costs 4 bits, and 64 of them share 32 bits of scale: 4.5 bits each.
#
# Scales may be quantised in their turn: 256 of them share one fp32, and each keeps 8 bits, which
# leaves 4 + 8 / 64 + 32 / (64 * 256) = 4.127 bits a weight.
#
# The levels: index 7 is an exact zero; 8 levels lie above it and 7 below, quantiles of a normal
# distribution scaled to [-1, 1]. Source: Dettmers et al. 2023, "QLoRA", appendix E.
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


@dataclass(frozen=True, slots=True)
class NestedScales:
    """Scales of blocks, quantised to eight bits ("double quantisation").

    Attributes:
        levels: uint8 [blocks], which entry of `code`.
        code: float32 [256], ascending in [-1, 1].
        absmax: float32 [ceil(blocks / 256)].
        offset: float32 [], the mean of the scales.
    """

    levels: Tensor
    code: Tensor
    absmax: Tensor
    offset: Tensor

    def expand(self) -> Tensor:
        """Return the scales, float32 [blocks]."""
        coarse = self.absmax.repeat_interleave(NESTED_BLOCK_SIZE)[: len(self.levels)]  # [blocks]
        return self.code[self.levels.int()] * coarse + self.offset


def nested_code(device: torch.device) -> Tensor:
    """Return the values that eight bits of a nested scale stand for, float32 [256], ascending.

    Seven decades of [0.1, 1], each cut in twice as many parts as the one below it, of either sign;
    zero; and one.
    """
    magnitudes: list[float] = []
    for decade in range(7):
        edges = torch.linspace(0.1, 1, 2**decade + 1)
        magnitudes += (10 ** (decade - 6) * ((edges[:-1] + edges[1:]) / 2)).tolist()
    values = [0.0, 1.0, *magnitudes, *(-value for value in magnitudes)]
    return torch.tensor(sorted(values), device=device)


def nest(absmax: Tensor) -> NestedScales:
    """Quantise scales; see `kernels.nf4.op.nest_nf4`."""
    code = nested_code(absmax.device)
    offset = absmax.mean()
    centred = absmax - offset
    blocks = F.pad(centred, (0, -len(centred) % NESTED_BLOCK_SIZE)).view(-1, NESTED_BLOCK_SIZE)
    coarse = blocks.abs().amax(dim=1)  # [ceil(blocks / 256)]
    # Where all scales are alike, bitsandbytes divides zero by zero and stores the lowest level.
    scaled = (blocks / coarse[:, None]).nan_to_num(nan=-1.0).flatten()[: len(centred)].clamp(-1, 1)
    step = ((scaled + 1) * 0.5 * _NESTED_STEPS + 0.5).long()
    steps = torch.arange(_NESTED_STEPS + 1, device=absmax.device) / _NESTED_STEPS * 2 - 1
    nearest = torch.bucketize(steps, (code[:-1] + code[1:]) / 2).to(torch.uint8)
    return NestedScales(nearest[step], code, coarse, offset)


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return packed levels and scales of a weight; see `kernels.nf4.op.quantize_nf4`."""
    levels = torch.tensor(LEVELS, device=weight.device)
    flat = weight.detach().reshape(-1).float()
    blocks = F.pad(flat, (0, -flat.numel() % BLOCK_SIZE)).view(-1, BLOCK_SIZE)  # [blocks, 64]
    absmax = blocks.abs().amax(dim=1)  # [blocks]
    # A product with the reciprocal, as bitsandbytes has it: the last bit decides at midpoints.
    scaled = (blocks * (1.0 / absmax.clamp(min=1e-38))[:, None]).clamp(-1.0, 1.0)  # [blocks, 64]
    midpoints = (levels[:-1] + levels[1:]) / 2  # [15]
    index = torch.bucketize(scaled.flatten()[: flat.numel()], midpoints).to(torch.uint8)
    index = F.pad(index, (0, index.numel() % 2), value=LEVELS.index(0.0))
    return (index[::2] << 4) | index[1::2], absmax


def dequantize(packed: Tensor, absmax: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the fp32 weight of packed levels; see `kernels.nf4.op.dequantize_nf4`."""
    levels = torch.tensor(LEVELS, device=packed.device)
    size = math.prod(shape)
    index = torch.stack((packed >> 4, packed & 0xF), dim=1).flatten()[:size]
    flat = F.pad(levels[index.int()], (0, -size % BLOCK_SIZE))  # [blocks * 64]
    return (flat.view(-1, BLOCK_SIZE) * absmax[:, None]).flatten()[:size].view(shape)


def linear(x: Tensor, packed: Tensor, absmax: Tensor, out_features: int) -> Tensor:
    """Return `x @ weight.T`, the weight dequantised to fp32 and cast to the type of `x`."""
    weight = dequantize(packed, absmax, (out_features, x.shape[-1]))
    return F.linear(x, weight.to(x.dtype))


def gated(x: Tensor, packed: Tensor, absmax: Tensor, out_features: int) -> Tensor:
    """Return `silu(gates) * ups`, the halves of `x @ weight.T` in its last dimension."""
    gate, up = linear(x, packed, absmax, out_features).chunk(2, dim=-1)
    return F.silu(gate) * up
