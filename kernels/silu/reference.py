"""The meaning of the gated SiLU, in plain PyTorch, on any device.

    y = gate / (1 + exp(-gate)) * up

Source: Shazeer 2020, "GLU variants improve transformer", equation 6 (SwiGLU).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def gated_silu(gate_up: Tensor) -> Tensor:
    """Multiply; arguments as `kernels.silu.op.gated_silu`."""
    gate, up = gate_up.chunk(2, dim=-1)  # [..., D] each
    return F.silu(gate) * up
