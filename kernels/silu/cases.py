"""What of the gated SiLU is compiled ahead of time: a 7B's rows."""

from __future__ import annotations

import torch

from kernels.aot_launch import launched
from kernels.silu import kernel

_GATE_UP = torch.empty((16, 2 * 11264), dtype=torch.bfloat16, device="meta")

CASES = launched("silu/bf16", lambda: kernel.gated_silu(_GATE_UP), {"gated_silu": kernel.BLOCK})
