"""What tests of Triton kernels share: where they run, and outputs that betray a stray write."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Kernels run on the device there is: in the interpreter on a CPU, or for real, marked `gpu`.
DEVICES = [pytest.param("cuda", marks=pytest.mark.gpu)] if torch.cuda.is_available() else ["cpu"]

on_device = pytest.mark.parametrize("device", DEVICES)

_GUARD = 64  # elements on either side of what was asked for
_ALLOCATORS = (torch.empty, torch.empty_like, Tensor.new_empty)


def poison(x: Tensor) -> Tensor:
    """Fill with what no test can mistake for a result: NaN, or the lowest integer."""
    return x.fill_(float("nan") if x.is_floating_point() else torch.iinfo(x.dtype).min)


class Guarded(TorchFunctionMode):
    """Poison every tensor allocated inside, and put it between guards that must stay."""

    def __init__(self) -> None:
        super().__init__()
        self._buffers: list[tuple[Tensor, int]] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Allocate with guards, and leave every other call as it is."""
        made = func(*args, **(kwargs or {}))
        if func not in _ALLOCATORS or made.numel() == 0:
            return made
        buffer = poison(
            torch.empty(made.numel() + 2 * _GUARD, dtype=made.dtype, device=made.device)
        )
        self._buffers.append((buffer, made.numel()))
        return buffer[_GUARD : _GUARD + made.numel()].view(made.shape)

    def __exit__(self, *exception: object) -> None:
        """Check the guards."""
        super().__exit__(*exception)
        if exception[0] is not None:
            return
        assert self._buffers, "the kernel allocated nothing"
        for buffer, size in self._buffers:
            expected = poison(torch.empty_like(buffer))
            for guard in (slice(None, _GUARD), slice(_GUARD + size, None)):
                torch.testing.assert_close(
                    buffer[guard], expected[guard], rtol=0, atol=0, equal_nan=True
                )


def assert_as_exact(got: Tensor, plain: Tensor, exact: Tensor, eps: float = 1e-5) -> None:
    """Check that a kernel's error is at most twice that of plain PyTorch in the same type.

    Args:
        got: what the kernel returned.
        plain: PyTorch's result in the type of the inputs.
        exact: the same in fp32 or better.
        eps: allowed beyond, relative to the largest value.
    """
    exact = exact.double()
    error, plain_error = ((x.double() - exact).abs().max() for x in (got, plain))
    assert got.isfinite().all()
    assert error <= 2 * plain_error + eps * exact.abs().max(), (error, plain_error)
