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

    def forward(self, patches: Tensor, places: Tensor) -> Tensor:
        """Map patches and where they are in their pictures to inputs of steps.

        Args:
            patches: float [patches, values] in -1 to 1.
            places: int64 [patches], from 0, row by row.

        Returns:
            float [patches, dim].
        """
        # Each by itself: a picture may be fed in several calls.
        patches = patches.to(self.place.dtype)
        x: Tensor = self.outer(functional.gelu(self.inner(patches) + self.place[places]))
        return x
