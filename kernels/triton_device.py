"""Where Triton can run, and where its interpreter stands in for a device."""

from __future__ import annotations

import importlib.util
from functools import cache

from torch import Tensor


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def is_interpreted(tensor: Tensor) -> bool:
    """Say whether a kernel over this tensor runs in Triton's interpreter rather than on a GPU.

    The interpreter takes bf16 for integers in arithmetic, so kernels compute in fp32 under it.
    """
    return tensor.device.type == "cpu"


def check_triton(*tensors: Tensor | None) -> None:
    """Refuse tensors that a Triton kernel cannot work on here.

    Raises:
        ValueError: if Triton is not installed, the tensors are on several devices, or on no CUDA
            device while Triton's interpreter is off (TRITON_INTERPRET=1 turns it on).
    """
    if not _has_triton():
        raise ValueError("backend triton: expected the package triton, which is not installed")
    # None stands for an optional argument that was left out.
    devices = sorted({str(each.device) for each in tensors if each is not None})
    if len(devices) != 1:
        raise ValueError(f"backend triton: expected one device, got {', '.join(devices)}")
    if devices[0].startswith("cuda"):
        return
    # The interpreter runs a kernel's body as numpy on the CPU: slow, and the same numbers.
    import triton  # type: ignore[import-untyped]  # noqa: PLC0415 - only where it is used

    if not (devices[0] == "cpu" and triton.knobs.runtime.interpret):
        raise ValueError(f"backend triton: expected tensors on cuda, got {devices[0]}")
