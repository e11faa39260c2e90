"""What of counted noise is compiled ahead of time: a frame of codes of a 7B."""

from __future__ import annotations

import torch

from kernels.aot_launch import launched
from kernels.noise import kernel

_ROWS = torch.empty(16, dtype=torch.int64, device="meta")

CASES = launched(
    "noise/8 x 250",
    lambda: kernel.exponential_noise(_ROWS, _ROWS, (8, 250), 1),
    {"exponential_noise": 4 * kernel.BLOCK},
)
