"""The meaning of RMSNorm with a residual, in plain PyTorch, on any device.

    y = total / sqrt(mean(total^2) + eps) * weight,    total = x + residual

Source: Zhang and Sennrich 2019, "Root mean square layer normalization", equation 4.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def rms_norm(
    x: Tensor, weight: Tensor, eps: float, residual: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Add, then normalise; arguments as `kernels.rmsnorm.op.rms_norm`."""
    total = x if residual is None else x + residual  # [..., D]
    return F.rms_norm(total, weight.shape, weight, eps), total
