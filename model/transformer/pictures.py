"""Let the transformer see: patches of a picture become inputs beside text and audio."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.config import LMConfig


class PatchEmbedding(nn.Module):
    """Embed the patches of pictures, each by itself and by its place.

    Args:
        config: sizes of pictures, patches and model.
    """

    def __init__(self, config: LMConfig) -> None:
        super().__init__()
        self.inner = nn.Linear(3 * config.patch_size**2, config.dim)
        self.outer = nn.Linear(config.dim, config.dim, bias=False)
        self.place = nn.Parameter(torch.empty(config.num_patches, config.dim).normal_(std=0.1))

    def forward(self, patches: Tensor) -> Tensor:
        """Map float [..., patches, values] in -1 to 1 to float [..., patches, dim]."""
        x: Tensor = self.outer(functional.gelu(self.inner(patches) + self.place))
        return x
