"""RMSNorm with a residual: the checked public call."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from kernels.rmsnorm import reference
from kernels.triton_device import check_triton

Backend = Literal["reference", "triton"]

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def rms_norm(
    x: Tensor, weight: Tensor, eps: float, *, residual: Tensor | None = None, backend: Backend
) -> tuple[Tensor, Tensor]:
    """Add a residual, then scale to unit mean square, in fp32, and by a learned weight.

    Args:
        x: float32, float16 or bfloat16 [..., dim].
        weight: of the type of `x`, [dim].
        eps: added to the mean square.
        residual: of the type and shape of `x`; None adds nothing.
        backend: "reference" is plain PyTorch; "triton" needs a CUDA device.

    Returns:
        The normalised rows and the sum `x + residual` (`x` itself without one), both of the type
        and shape of `x`.

    Raises:
        ValueError: if types, sizes or devices do not belong together or the backend cannot run.

    Source: Zhang and Sennrich 2019, Root mean square layer normalization, equation 4.
    """
    if weight.ndim != 1 or x.shape[-1:] != weight.shape or x.numel() == 0:
        raise ValueError(
            f"expected [..., dim] and [dim], got {list(x.shape)}, {list(weight.shape)}"
        )
    if residual is not None and residual.shape != x.shape:
        raise ValueError(f"expected a residual {list(x.shape)}, got {list(residual.shape)}")
    types = [each.dtype for each in (x, weight, residual) if each is not None]
    if x.dtype not in _DTYPES or len(set(types)) != 1:
        raise ValueError(
            f"expected fp32, fp16 or bf16 throughout, got {', '.join(map(str, types))}"
        )
    if backend == "reference":
        return reference.rms_norm(x, weight, eps, residual)
    if backend != "triton":
        raise ValueError(f"expected a backend out of reference, triton, got {backend}")
    check_triton(x, weight, residual)
    from kernels.rmsnorm import kernel  # noqa: PLC0415 - Triton is imported only where it is used

    if x.shape[-1] > kernel.MAX_DIM:
        raise ValueError(
            f"backend triton: expected at most {kernel.MAX_DIM} wide, got {x.shape[-1]}"
        )
    return kernel.rms_norm(x, weight, eps, residual)
