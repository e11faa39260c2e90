"""What of RMSNorm is compiled ahead of time: a 7B's rows, with a residual."""

from __future__ import annotations

import torch

from kernels.aot_launch import launched
from kernels.rmsnorm import kernel

_DIM = 4096
_ROWS = torch.empty((16, _DIM), dtype=torch.bfloat16, device="meta")

CASES = launched(
    "rmsnorm/4096 bf16",
    lambda: kernel.rms_norm(_ROWS, _ROWS[0], 1e-8, _ROWS),
    {"rms_norm": _DIM},
)
