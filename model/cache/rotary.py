"""The rotary embedding: what turns a position into a rotation of queries and keys."""

from __future__ import annotations

import torch
from torch import Tensor


def rope_frequencies(head_dim: int, base: float) -> Tensor:
    """Return the angle per step of each pair, float32 [head_dim / 2].

    Source: Su et al. 2021, RoFormer, equation 15.
    """
    index = torch.arange(0, head_dim, 2, dtype=torch.float32)
    return 1.0 / base ** (index / head_dim)


def rope_table(position: Tensor, frequencies: Tensor) -> Tensor:
    """Return the rotations of given positions.

    Args:
        position: int64 [B, T], absolute step index.
        frequencies: from `rope_frequencies`.

    Returns:
        complex64 [B, T, 1, head_dim / 2], ready to broadcast over heads.
    """
    angle = position[:, :, None, None] * frequencies
    return torch.complex(angle.cos(), angle.sin())


def rotate(x: Tensor, rope: Tensor) -> Tensor:
    """Rotate neighbouring pairs of `x: [B, T, H, head_dim]` (interleaved RoPE), in fp32."""
    pairs = torch.view_as_complex(x.float().view(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * rope).flatten(-2).to(x.dtype)


def rotate_(x: Tensor, rope: Tensor) -> None:
    """Do as `rotate` in place."""
    if x.dtype == torch.float32:
        torch.view_as_complex(x.view(*x.shape[:-1], -1, 2)).mul_(rope)
    else:
        x.copy_(rotate(x, rope))
