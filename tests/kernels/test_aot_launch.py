"""Cases come from launches: types, constants and alignment as Triton would find them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from triton.runtime.jit import JITFunction  # type: ignore[import-untyped]  # shipped without types

from kernels.aot_launch import launched


def _copy(
    x_ptr: Any,
    y_ptr: Any,
    size: Any,
    step: Any,
    big: Any,
    eps: Any,
    BLOCK: Any,
) -> None:
    """Stand for a kernel; the annotation of a constant is set below."""


_copy.__annotations__["BLOCK"] = "tl.constexpr"


def _call(kernel: JITFunction, block: int) -> None:
    x = torch.empty(48, dtype=torch.bfloat16, device="meta")
    sizes = (36, 1, 2**32, 0.5)
    kernel[(3,)](x, x.to(torch.int8), *sizes, BLOCK=block, num_warps=2)


def test_a_launch_becomes_a_case() -> None:
    """A one is a constant, a number that is no multiple of 16 unaligned, a large one an i64."""
    kernel = JITFunction(_copy)

    def call() -> None:
        for block in (16, 16, 32):
            _call(kernel, block)

    first, second = launched("op/form", call, {"copy": 7})
    assert (first.name, second.name) == ("op/form copy", "op/form copy 2")
    assert first.arguments == {
        "x_ptr": "*bf16",
        "y_ptr": "*i8",
        "size": "i32",
        "big": "i64",
        "eps": "fp32",
    }
    assert first.constants == {"step": 1, "BLOCK": 16}
    assert second.constants == {"step": 1, "BLOCK": 32}
    assert first.unaligned == ("size",)
    assert (first.num_warps, first.units_per_turn) == (2, 7)


def test_what_is_not_specialised_is_plain() -> None:
    """A kernel may ask for one compilation whatever the number: neither constant nor aligned."""
    kernel = JITFunction(_copy, do_not_specialize=["step", "size"])
    (case,) = launched("op/form", lambda: _call(kernel, 16), {"copy": 1})
    assert case.arguments["step"] == "i32"
    assert case.unaligned == ("size", "step")


def test_an_unexpected_launch_is_told() -> None:
    """What a call launches is what its units name."""
    kernel = JITFunction(_copy)
    with pytest.raises(ValueError, match=r"expected launches of \['other'\], got \['copy'\]"):
        launched("op/form", lambda: _call(kernel, 16), {"other": 1})
