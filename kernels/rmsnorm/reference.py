"""The meaning of RMSNorm with a residual, in plain PyTorch, on any device."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def rms_norm(
    x: Tensor, weight: Tensor, eps: float, residual: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Add, then normalise; arguments as `kernels.rmsnorm.op.rms_norm`."""
    total = x if residual is None else x + residual
    return F.rms_norm(total, weight.shape, weight, eps), total
