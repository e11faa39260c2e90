"""Compile cases of the launches that a call makes, found by making it without a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from triton.runtime.jit import JITFunction  # type: ignore[import-untyped]  # shipped without types

from kernels.aot import CompileCase

_OPTIONS = ("num_warps", "num_stages")
_ALIGNMENT = 16
_MAX_INT32 = 2**31 - 1
_TYPES = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int8: "*i8",
    torch.uint8: "*u8",
    torch.int32: "*i32",
    torch.int64: "*i64",
}


def launched(
    name: str, call: Callable[[], object], units: Mapping[str, int]
) -> tuple[CompileCase, ...]:
    """Return a case for each launch of a call.

    Args:
        name: of the cases, "operation/variant"; the function's name follows, and a number where a
            function is launched again with other constants.
        call: a kernel module's host function over tensors on the device "meta", which take no
            memory and count as aligned.
        units: `units_per_turn` by name of the function.

    Raises:
        ValueError: if the call launches something else than what `units` names.
    """
    cases: list[CompileCase] = []

    def record(kernel: Any, *args: Any, grid: object, warmup: bool, **kwargs: Any) -> None:
        del grid, warmup
        case = _case(kernel, dict(zip(kernel.arg_names, args, strict=False)) | kwargs)
        if case not in cases:
            cases.append(case)

    # The host function runs as always and computes grid and constants; only the launch itself is
    # caught. Triton's own hooks would not do: they run after it has asked for a device.
    with mock.patch.object(JITFunction, "run", record):
        call()
    functions = [case.kernel.__name__.strip("_") for case in cases]
    if set(functions) != units.keys():
        raise ValueError(f"{name}: expected launches of {sorted(units)}, got {functions}")
    return tuple(
        replace(
            case,
            name=f"{name} {_numbered(functions, index)}",
            units_per_turn=units[functions[index]],
        )
        for index, case in enumerate(cases)
    )


def _numbered(functions: list[str], index: int) -> str:
    before = functions[:index].count(functions[index])
    return functions[index] + (f" {before + 1}" if before else "")


def _case(kernel: Any, arguments: dict[str, Any]) -> CompileCase:
    options = {key: arguments.pop(key) for key in _OPTIONS if key in arguments}
    constant = {each.name for each in kernel.params if each.is_constexpr}
    plain = {each.name for each in kernel.params if each.do_not_specialize}
    # Triton takes an integer that is 1 for a constant, and nothing as well.
    constant |= {key for key, value in arguments.items() if value is None}
    constant |= {
        key
        for key, value in arguments.items()
        if isinstance(value, int) and value == 1 and key not in plain
    }
    varying = {key: value for key, value in arguments.items() if key not in constant}
    return CompileCase(
        name="",
        kernel=kernel,
        arguments={key: _type(value) for key, value in varying.items()},
        constants={key: arguments[key] for key in constant},
        unaligned=tuple(
            key
            for key, value in varying.items()
            if isinstance(value, int) and (value % _ALIGNMENT != 0 or key in plain)
        ),
        units_per_turn=1,
        **options,
    )


def _type(value: Tensor | float) -> str:
    if isinstance(value, Tensor):
        return _TYPES[value.dtype]
    if isinstance(value, int):
        return "i32" if value <= _MAX_INT32 else "i64"
    return "fp32"
