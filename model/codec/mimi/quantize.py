"""Mimi's codes: one codebook for meaning and, beside it, a residual stack for sound.

Both code the same latent, each through a projection of its own, so the semantic code is not a first
approximation that the others refine.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from kernels.rvq import nearest_codes
from model.codec.mimi.config import MimiConfig
from model.transformer.backend import KernelModule


class ResidualCodes(KernelModule):
    """Codebooks in a row, each coding what the ones before left over.

    Backends may take entries for one another that are, to rounding, equally near.

    Source: Zeghidour et al. 2021, "SoundStream", algorithm 1.
    """

    tables: Tensor
    lead: Tensor

    def __init__(self, config: MimiConfig, num_codebooks: int) -> None:
        super().__init__()
        self.to_codes = nn.Linear(config.dim, config.codebook_dim, bias=False)
        self.from_codes = nn.Linear(config.codebook_dim, config.dim, bias=False)
        shape = (num_codebooks, config.codebook_size, config.codebook_dim)
        self.register_buffer("tables", torch.randn(shape))
        # Of the squared distance |x - e|^2 only |e|^2 - 2 x.e depends on the entry.
        self.register_buffer("lead", None, persistent=False)
        self.prepare()

    def prepare(self) -> None:
        """Compute what the search needs, after the tables have been set."""
        self.lead = self.tables.square().sum(2) * -0.5

    def encode(self, latent: Tensor) -> Tensor:
        """Quantise ``latent [N, dim]`` to int64 ``[N, num_codebooks]``."""
        left = self.to_codes(latent)
        if self.backend != "reference":
            return nearest_codes(left, self.tables, -self.lead, backend=self.backend)
        # A worked example in one dimension. The latent is 2.7; the tables are (0, 2, 4) and (-0.5,
        # 0, 0.5). The first takes 2, which leaves 0.7; the second takes 0.5. The codes are 1 and 2,
        # and stand for 2.5. Each codebook makes the rest smaller, so the first ones matter most.
        codes = []
        for table, lead in zip(self.tables, self.lead, strict=True):
            # The nearest entry has the largest x.e - |e|^2 / 2; |x|^2 is the same for all.
            nearest = torch.addmm(lead, left, table.T).argmax(1)
            left = left - functional.embedding(nearest, table)
            codes.append(nearest)
        return torch.stack(codes, dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """Return latents ``[..., dim]`` of ``codes [..., K]``, K of the codebooks or fewer."""
        num_used = codes.shape[-1]
        start = torch.arange(num_used, device=codes.device) * self.tables.shape[1]
        entries = functional.embedding(codes + start, self.tables[:num_used].flatten(0, 1))
        out: Tensor = self.from_codes(entries.sum(-2))
        return out


class SplitCodes(nn.Module):
    """The semantic codebook and the acoustic ones."""

    def __init__(self, config: MimiConfig) -> None:
        super().__init__()
        self.semantic = ResidualCodes(config, 1)
        self.acoustic = ResidualCodes(config, config.num_codebooks - 1)

    def prepare(self) -> None:
        """Compute what the search needs, after the tables have been set."""
        self.semantic.prepare()
        self.acoustic.prepare()

    def encode(self, latent: Tensor) -> Tensor:
        """Quantise ``latent [B, T, dim]`` to int64 ``[B, T, K]``, the semantic code first."""
        flat = latent.flatten(0, 1)
        codes = torch.cat([self.semantic.encode(flat), self.acoustic.encode(flat)], dim=1)
        return torch.unflatten(codes, 0, latent.shape[:2])

    def decode(self, codes: Tensor) -> Tensor:
        """Return latents ``[B, T, dim]`` of ``codes [B, T, K]``, K of the codebooks or fewer."""
        latent: Tensor = self.semantic.decode(codes[..., :1])
        if codes.shape[-1] > 1:
            latent = latent + self.acoustic.decode(codes[..., 1:])
        return latent
