"""A kernel that adds one, to see whether Triton can compile and run it here."""
# Triton ships without types, and the arguments of its kernels are pointers and numbers:
# mypy: disable-error-code="no-untyped-def, untyped-decorator"
# ruff: noqa: ANN001

import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]

VERSION: str = triton.__version__


@triton.jit
def add_one(x_ptr, size, BLOCK: tl.constexpr) -> None:
    """Add one to `size` float32 numbers."""
    at = tl.arange(0, BLOCK)
    numbers = tl.load(x_ptr + at, mask=at < size)
    tl.store(x_ptr + at, numbers + 1, mask=at < size)
