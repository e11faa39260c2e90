"""Vector quantisers: one codebook for meaning, a residual stack for sound."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

EMA_DECAY = 0.98
# A code used less than this many times a step (moving average) is re-seeded from the data.
DEAD_USAGE = 0.03


class Codebook(nn.Module):
    """One table of vectors learned by exponential moving averages.

    Source: van den Oord et al. 2017, "Neural Discrete Representation Learning", appendix A.1.
    """

    vectors: Tensor
    usage: Tensor
    sums: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("vectors", torch.randn(size, dim))
        self.register_buffer("usage", torch.ones(size), persistent=False)
        self.register_buffer("sums", self.vectors.clone(), persistent=False)

    def search(self, x: Tensor) -> Tensor:
        """Find the nearest vector of each row of ``x [N, dim]``, float32; returns int64 ``[N]``."""
        # |x|^2 is the same for all
        return (self.vectors.square().sum(1) - 2.0 * (x @ self.vectors.T)).argmin(1)

    def lookup(self, codes: Tensor) -> Tensor:
        """Return vectors ``[..., dim]`` of ``codes [...]``; code -1 (absent) is an exact zero."""
        found = functional.embedding(codes.clamp_min(0), self.vectors)
        return found * (codes >= 0).unsqueeze(-1).to(found.dtype)

    @torch.no_grad()
    def initialise(self, x: Tensor, rounds: int = 10) -> None:
        """Set the table by k-means on ``x [N, dim]``, N at least the table's size."""
        self.vectors.copy_(x[torch.randperm(len(x))[: self.size]])
        # Lloyd's k-means. A vector that nobody chose is put on a row of the data at random: it
        # would stay unused for ever where it is.
        for _ in range(rounds):
            codes = self.search(x)
            counts = torch.bincount(codes, minlength=self.size).to(x.dtype)
            sums = torch.zeros_like(self.vectors).index_add_(0, codes, x)
            alive = counts > 0
            self.vectors[alive] = sums[alive] / counts[alive, None]
            dead = (~alive).nonzero().flatten()
            self.vectors[dead] = x[torch.randint(len(x), (len(dead),))]
        self.usage.fill_(1.0)
        self.sums.copy_(self.vectors)

    @torch.no_grad()
    def learn(self, x: Tensor, codes: Tensor) -> None:
        """Move the table towards ``x [N, dim]``, and re-seed dead codes.

        Each vector follows the mean of the rows that chose it: ``codes [N]``.
        """
        counts = torch.bincount(codes, minlength=self.size).to(x.dtype)
        sums = torch.zeros_like(self.sums).index_add_(0, codes, x)
        # Each vector is a running mean: of the rows that chose it, 2 % of the newest batch and 98 %
        # of before. It is kept as a sum and a count, since the mean of means would weigh a batch
        # with one such row like a batch with a hundred.
        self.usage.lerp_(counts, 1.0 - EMA_DECAY)
        self.sums.lerp_(sums, 1.0 - EMA_DECAY)
        dead = (self.usage < DEAD_USAGE).nonzero().flatten()
        if len(dead):
            self.sums[dead] = x[torch.randint(len(x), (len(dead),))]
            self.usage[dead] = 1.0
        self.vectors.copy_(self.sums / self.usage[:, None])


class ResidualQuantizer(nn.Module):
    """`depth` codebooks in a row, each coding what the ones before left over (depth 1: plain VQ).

    Source: Zeghidour et al. 2021, "SoundStream", algorithm 1.
    """

    def __init__(self, depth: int, size: int, dim: int) -> None:
        super().__init__()
        # The cast says what a ModuleList's type leaves out: what it holds.
        self.books = cast(
            "Sequence[Codebook]", nn.ModuleList(Codebook(size, dim) for _ in range(depth))
        )

    def encode(self, x: Tensor) -> Tensor:
        """Quantise ``x [N, dim]`` to int64 codes ``[N, depth]``."""
        codes = []
        for book in self.books:
            chosen = book.search(x)
            x = x - book.vectors[chosen]
            codes.append(chosen)
        return torch.stack(codes, dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """Sum the vectors of ``codes [..., depth]`` into ``[..., dim]``; -1 adds nothing."""
        return torch.stack([book.lookup(codes[..., i]) for i, book in enumerate(self.books)]).sum(0)

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Set every table by k-means on the residuals of ``x [N, dim]``."""
        for book in self.books:
            book.initialise(x)
            x = x - book.vectors[book.search(x)]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantise ``x [N, dim]`` for training, updating the tables when in training mode.

        Returns:
            The quantised rows with the straight-through gradient, the codes ``[N, depth]`` and the
            commitment loss (scalar).
        """
        target = x.detach().float()
        residual = target
        codes = []
        total = torch.zeros_like(target)
        for book in self.books:
            chosen = book.search(residual)
            vector = book.vectors[chosen]
            if self.training:
                book.learn(residual, chosen)
            residual = residual - vector
            total = total + vector
            codes.append(chosen)
        commitment = (x.float() - total).square().mean()
        # Straight through: the value is `total`, and the gradient that of x, since what is added to
        # x is detached. Rounding to a code has no gradient of its own.
        return x + (total - x.detach()).to(x.dtype), torch.stack(codes, dim=1), commitment
