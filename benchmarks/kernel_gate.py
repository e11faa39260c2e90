"""The correctness gate of the kernel benchmark."""

from __future__ import annotations

import torch
from torch import Tensor

_RELATIVE_ERROR = 2.0**-6  # of the largest value: two bits of bf16 and some


class WrongError(Exception):
    """A kernel does not do what its reference does."""


def check_close(what: str, got: Tensor, expected: Tensor) -> None:
    """Refuse a result that is off by more than rounding explains, or not finite.

    Raises:
        WrongError: if it is.
    """
    # The largest of all: one wrong tile among thousands is a mistake, and a mean would not show it.
    error = (got.double() - expected.double()).abs().max().item()
    allowed = _RELATIVE_ERROR * expected.double().abs().max().item()
    # Not `error > allowed`: a result that is not a number compares false with everything, and must
    # fail.
    if not error <= allowed:
        raise WrongError(f"{what}: off by {error:.3g}, expected at most {allowed:.3g}")


def check_same(what: str, got: Tensor, expected: Tensor, share: float = 0.0) -> None:
    """Refuse numbers of which more than a share differ.

    Args:
        what: for the message.
        got: integers.
        expected: the same, as the reference says.
        share: of numbers that may differ, where near ties are decided by rounding.

    Raises:
        WrongError: if more do.
    """
    different = torch.count_nonzero(got != expected).item() / expected.numel()
    if different > share:
        raise WrongError(f"{what}: {different:.2%} differ, expected at most {share:.2%}")
