"""What is different on a CUDA device: Triton's kernels, and every frame as one captured graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import torch
from torch import nn

from kernels.nf4.planar import use_planar
from model.backend import use_backend
from model.dialogue.duplex import Duplex, DuplexConfig, DuplexFrame
from model.dialogue.frame_graphs import FrameGraphs, cuda_capture
from model.errors import ConfigError
from model.memory import Reading

DuplexStep: TypeAlias = "Callable[..., DuplexFrame]"  # as `Duplex.step`


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
        try:
            use_planar(module, "triton")
        except ValueError as error:
            raise ConfigError(f"engine.linears: nf4 cannot be used: {error}") from error


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
    return -(-page_steps // 32) * 32 if has_kernels(device) else page_steps


def stepper(duplex: Duplex) -> DuplexStep:
    """Return what steps a model: its own `step`, or on a device with graphs what they captured.

    Conditions, if the model has any, must have been set once before.
    """
    if not has_kernels(duplex.state.device):
        return duplex.step
    return FrameGraphs(duplex, cuda_capture).step
