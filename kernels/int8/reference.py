"""The meaning of an int8 linear layer, in plain PyTorch, on any device.

    levels[n, k] = round(weight[n, k] / scale[n]),    scale[n] = max over k of |weight[n, k]| / 127
    y[m, n]      = scale[n] * sum over k of x[m, k] * levels[n, k]

Source: Dettmers et al. 2022, "LLM.int8()" (a scale for each row of the weight).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Programs of the kernel that share an output tile count themselves. There are counters for tiles
# of so many outputs, for as many as that of rows.
MIN_TILE, MAX_ROW_TILES = 64, 4


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return levels and scales of a weight; see `kernels.int8.op.quantize_int8`."""
    weight = weight.detach().float()
    # The scale is rounded to its storage type first, so that levels fit the scale that is stored.
    scale = (weight.abs().amax(dim=1).clamp(min=1e-30) / 127).bfloat16()  # [N]
    levels = (weight / scale.float()[:, None]).round().clamp(-127, 127)  # [N, K]
    return levels.to(torch.int8), scale


def linear(x: Tensor, levels: Tensor, scale: Tensor) -> Tensor:
    """Return `x @ weight.T` in the type of `x`, summed in fp32."""
    return (F.linear(x.float(), levels.float()) * scale.float()).to(x.dtype)
