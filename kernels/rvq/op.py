"""Nearest-code search of a residual quantiser: checked public calls."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from kernels.rvq import reference
from kernels.triton_device import check_triton

Backend = Literal["reference", "triton"]


def half_norms(tables: Tensor) -> Tensor:
    """Return half the squared length of every entry, which a search needs and tables determine.

    Args:
        tables: float32 [levels, entries, dim].

    Returns:
        float32 [levels, entries].
    """
    return reference.half_norms(tables)


def nearest_codes(x: Tensor, tables: Tensor, norms: Tensor, *, backend: Backend) -> Tensor:
    """Code rows level by level, each level coding what the ones before left over.

    Of entries at the same distance the lowest is taken. Products are summed in fp32; backends sum
    them in different orders, so entries whose distances differ by less than that is worth may be
    taken for one another.

    Args:
        x: float32 [rows, dim].
        tables: float32 [levels, entries, dim].
        norms: float32 [levels, entries], from `half_norms`.
        backend: "reference" is plain PyTorch; "triton" needs a CUDA device.

    Returns:
        int64 [rows, levels].

    Raises:
        ValueError: if types, sizes or devices do not belong together or the backend cannot run.

    Source: Zeghidour et al. 2021, SoundStream, algorithm 1.
    """
    if (
        x.ndim != 2
        or tables.ndim != 3
        or x.shape[1] != tables.shape[2]
        or norms.shape != tables.shape[:2]
        or min(*x.shape, *tables.shape) == 0
    ):
        raise ValueError(
            "expected x [rows, dim], tables [levels, entries, dim], norms [levels, entries], got "
            f"{list(x.shape)}, {list(tables.shape)}, {list(norms.shape)}"
        )
    types = (x.dtype, tables.dtype, norms.dtype)
    if set(types) != {torch.float32}:
        raise ValueError(f"expected float32 throughout, got {', '.join(map(str, types))}")
    if backend == "reference":
        return reference.nearest_codes(x, tables, norms)
    if backend != "triton":
        raise ValueError(f"expected a backend out of reference, triton, got {backend}")
    check_triton(x, tables, norms)
    if not (tables.is_contiguous() and norms.is_contiguous()):
        raise ValueError("backend triton: expected contiguous tables and norms")
    from kernels.rvq import kernel  # noqa: PLC0415 - Triton is imported only where it is used

    most = kernel.MAX_PARTS * kernel.BLOCK_C
    if tables.shape[1] > most:
        raise ValueError(f"backend triton: expected at most {most} entries, got {tables.shape[1]}")
    return kernel.nearest_codes(x, tables, norms)
