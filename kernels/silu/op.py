"""The gated SiLU: the checked public call."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from kernels.silu import reference
from kernels.triton_device import check_triton

Backend = Literal["reference", "triton"]

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def gated_silu(gate_up: Tensor, *, backend: Backend) -> Tensor:
    """Return `silu(gate) * up` of the two halves of a row.

    Args:
        gate_up: float32, float16 or bfloat16 [..., 2 * dim], the gates first.
        backend: "reference" is plain PyTorch; "triton" needs a CUDA device.

    Returns:
        [..., dim] of the type of `gate_up`.

    Raises:
        ValueError: if the type, size or device does not fit or the backend cannot run.

    Source: Shazeer 2020, GLU variants improve transformer, equation 6 (SwiGLU).
    """
    if gate_up.dtype not in _DTYPES:
        raise ValueError(f"expected fp32, fp16 or bf16, got {gate_up.dtype}")
    if gate_up.ndim == 0 or gate_up.shape[-1] % 2 or gate_up.numel() == 0:
        raise ValueError(f"expected [..., 2 * dim], got {list(gate_up.shape)}")
    if backend == "reference":
        return reference.gated_silu(gate_up)
    if backend != "triton":
        raise ValueError(f"expected a backend out of reference, triton, got {backend}")
    check_triton(gate_up)
    from kernels.silu import kernel  # noqa: PLC0415 - Triton is imported only where it is used

    return kernel.gated_silu(gate_up)
