"""What is different on a CUDA device: Triton's kernels, and every frame as one captured graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from kernels.arithmetic import ceil_div
from kernels.int8 import use_int8
from model.cache.store import Reading
from model.duplex.driver import DuplexConfig
from model.errors import ConfigError
from model.precision import Backend
from model.transformer.backend import use_backend
from model.transformer.graphs import Driven, FrameGraphs, FrameT, cuda_capture
from model.transformer.planar import use_planar_linears


def has_kernels(device: torch.device) -> bool:
    """Say whether Triton's kernels and graphs are used there."""
    return device.type == "cuda"


def use_kernels(*modules: nn.Module) -> None:
    """Switch modules that are on a device with kernels to these, in place; others stay.

    Raises:
        ConfigError: a quantised linear has a width that its kernel cannot do.
    """
    for module in modules:
        if not has_kernels(next(module.parameters()).device):
            continue
        use_backend(module, "triton")
        use_linears(module, "triton")


def use_linears(module: nn.Module, backend: Backend) -> None:
    """Switch quantised linears to the layout and kernel of a device, in place; dense ones stay.

    Args:
        module: on its device, its weights loaded.
        backend: "triton"; or "reference", the same in plain PyTorch.

    Raises:
        ConfigError: a quantised linear has a width or device that its kernel cannot do.
    """
    try:
        use_int8(module, backend)
    except ValueError as error:
        raise ConfigError(f"int8 linears cannot be used: {error}") from error
    use_planar_linears(module, backend)


def drive_on(device: torch.device, drive: DuplexConfig) -> DuplexConfig:
    """Let tokens be drawn where it is fastest."""
    if not has_kernels(device):
        return drive
    return replace(
        drive,
        text_sampling=replace(drive.text_sampling, backend="triton"),
        audio_sampling=replace(drive.audio_sampling, backend="triton"),
    )


def reading_on(device: torch.device) -> Reading:
    """Say how attention reads memory there."""
    return "triton" if has_kernels(device) else "views"


def page_steps_on(device: torch.device, page_steps: int) -> int:
    """Return the size of a page there, at least as asked for: kernels read 32 columns at a time."""
    return ceil_div(page_steps, 32) * 32 if has_kernels(device) else page_steps


def stepper(
    driven: Driven[Any, FrameT], sizes: Sequence[int] | None = None
) -> Callable[..., FrameT]:
    """Return what steps a model: its own `step`, or on a device with graphs what they captured.

    Args:
        driven: to step.
        sizes: numbers of rows to capture, as for `FrameGraphs`.

    Returns:
        To be called as `driven.step` is, and returning the same.
    """
    if not has_kernels(driven.state.device):
        return driven.step
    return FrameGraphs(driven, cuda_capture, sizes).step
