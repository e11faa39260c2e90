"""What runs where: kernels and graphs follow from the device alone."""

from __future__ import annotations

import torch
from torch import nn

from kernels.nf4 import NF4Linear
from model.attention import RMSNorm
from model.dialogue.duplex import DuplexConfig
from model.engine.accelerate import drive_on, has_kernels, reading_on, use_kernels

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_only_cuda_has_kernels() -> None:
    """Draws and the reading of memory are those of the device."""
    drive = DuplexConfig(delays=(0, 0, 1))
    assert not has_kernels(CPU)
    assert has_kernels(CUDA)
    assert drive_on(CPU, drive) is drive
    on_cuda = drive_on(CUDA, drive)
    assert {on_cuda.text_sampling.backend, on_cuda.audio_sampling.backend} == {"triton"}
    assert (reading_on(CPU), reading_on(CUDA)) == ("views", "triton")


def test_a_cpu_keeps_plain_modules() -> None:
    """There a model is left as it was loaded."""
    norm, linear = (
        RMSNorm(8, 1e-5),
        NF4Linear.from_linear(nn.Linear(64, 8, bias=False), "reference"),
    )
    model = nn.Sequential(norm, linear)
    use_kernels(model)
    assert norm.backend == "reference"
    assert model[1] is linear
