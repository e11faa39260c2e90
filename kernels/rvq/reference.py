"""The meaning of the residual search, in plain PyTorch, on any device.

Source: Zeghidour et al. 2021, "SoundStream", algorithm 1 (residual vector quantisation).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def half_norms(tables: Tensor) -> Tensor:
    """Return halves of squared lengths; see `kernels.rvq.op.half_norms`."""
    return tables.double().square().sum(-1).mul(0.5).float()


def nearest_codes(x: Tensor, tables: Tensor, norms: Tensor) -> Tensor:
    """Search level by level; arguments as `kernels.rvq.op.nearest_codes`."""
    left, codes = x, []
    for table, norm in zip(tables, norms, strict=True):
        # Of half the squared distance |left - e|^2 only |e|^2 / 2 - left.e depends on the entry.
        nearest = (left @ table.T - norm).argmax(1)  # [R]
        left = left - F.embedding(nearest, table)  # [R, D]
        codes.append(nearest)
    return torch.stack(codes, dim=1)
