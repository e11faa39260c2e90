"""Counted noise: the checked public call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from kernels.noise import reference
from kernels.triton_device import check_triton

Backend = Literal["reference", "triton"]


def exponential_noise(
    keys: Tensor, steps: Tensor, shape: Sequence[int], *, stream: int, backend: Backend
) -> Tensor:
    """Draw Exp(1) noise, a row for each key, that depends on its key and step and on nothing else.

    So no generator has to be kept, a row does not depend on its batch, and a step that is taken
    again draws the same. The backends differ by the rounding of a logarithm.

    Args:
        keys: int64 [n], equal ones give equal noise.
        steps: int64 [n], of each row.
        shape: of one row.
        stream: 0 to 2^31 - 1, tells apart what is drawn at the same step.
        backend: "reference" is plain PyTorch; "triton" needs a CUDA device.

    Returns:
        float32 [n, *shape], none of it 0.

    Raises:
        ValueError: if types, sizes or device do not fit or the backend cannot run.

    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", Philox4x32-10; the
    exponential by inversion, e.g. Devroye 1986, Non-uniform random variate generation, II.2.
    """
    for name, tensor in (("keys", keys), ("steps", steps)):
        if tensor.dtype != torch.int64 or tensor.ndim != 1:
            raise ValueError(f"{name}: expected int64 [n], got {tensor.dtype} {list(tensor.shape)}")
    if len(keys) != len(steps):
        raise ValueError(f"expected as many steps as keys, {len(keys)}, got {len(steps)}")
    if not shape or min(shape) < 1:
        raise ValueError(f"expected a shape of at least one number, got {list(shape)}")
    if backend == "reference":
        return reference.exponential_noise(keys, steps, shape, stream)
    if backend != "triton":
        raise ValueError(f"expected a backend out of reference, triton, got {backend}")
    check_triton(keys, steps)
    from kernels.noise import kernel  # noqa: PLC0415 - Triton is imported only where it is used

    return kernel.exponential_noise(keys, steps, shape, stream)
