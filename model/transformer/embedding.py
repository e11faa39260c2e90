"""Tables of learned vectors: one row a code or piece, the last row for the first input.

An absent code or piece, -1, is exactly zero.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CodeTables(nn.Module):
    """One table for each codebook.

    Args:
        num_codebooks: tables.
        rows: codes of a codebook, and one more.
        width: of a row.

    Attributes:
        table: float [num_codebooks, rows, width], parameter.
    """

    def __init__(self, num_codebooks: int, rows: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(num_codebooks, rows, width).normal_(std=0.5))

    def forward(self, codes: Tensor, codebook: int) -> Tensor:
        """Return float [..., width] of `codes: int64 [...]`."""
        return _rows(self.table[codebook], codes)


class SummedTables(CodeTables):
    """Embed the codes of a frame as the sum of their rows, in the order of the codebooks.

    Each addition rounds: in bf16 the order is part of what a checkpoint computes.
    """

    def forward(self, codes: Tensor, before: Tensor | None) -> Tensor | None:  # type: ignore[override]  # all codebooks at once
        """Add the codes to what there is.

        Args:
            codes: int64 [B, T, K].
            before: float [B, T, width], or None for nothing yet.

        Returns:
            float [B, T, width].
        """
        for table, code in zip(self.table, codes.unbind(-1), strict=True):
            rows = _rows(table, code)
            before = rows if before is None else before + rows
        return before


class TextTable(nn.Module):
    """Embed text pieces.

    Args:
        rows: pieces, and one more.
        dim: width of what comes out.
        rank: width of the table where it is narrower than that; None if it is not.
    """

    def __init__(self, rows: int, dim: int, rank: int | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, rank or dim).normal_(std=0.5))
        self.out = nn.Linear(rank, dim, bias=False) if rank else nn.Identity()

    def forward(self, text: Tensor) -> Tensor:
        """Return float [..., dim] of `text: int64 [...]`."""
        x: Tensor = self.out(_rows(self.weight, text))
        return x


class TwoTextTable(nn.Module):
    """Embed tokens that stand for two pieces: `(second + 1) * rows + first`; -1 is no piece.

    Args: as `TextTable`.
    """

    def __init__(self, rows: int, dim: int, rank: int | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, rank or dim).normal_(std=0.5))
        self.first_out = nn.Linear(rank or dim, dim, bias=False)
        self.second_out = nn.Linear(rank or dim, dim, bias=False)

    def forward(self, text: Tensor) -> Tensor:
        """Return float [..., dim] of `text: int64 [...]`."""
        # With 5 rows, the pieces 3 and 2 are the token (2 + 1) * 5 + 3 = 18, and back: 18 % 5 = 3
        # and 18 // 5 - 1 = 2. Without a second piece the token is 3 itself: 3 // 5 - 1 = -1, which
        # is no piece.
        rows = len(self.weight)
        first = torch.where(text < 0, text, text % rows)
        second = torch.div(text, rows, rounding_mode="floor").clamp(min=0) - 1
        x: Tensor = self.first_out(_rows(self.weight, first))
        y: Tensor = x + self.second_out(_rows(self.weight, second))
        return y


def _rows(table: Tensor, index: Tensor) -> Tensor:
    return F.embedding(index.clamp(min=0), table) * (index >= 0).unsqueeze(-1)
