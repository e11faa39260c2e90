"""Microphones and rooms for whole batches at once: cheap enough to run inside a training step."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from kernels.arithmetic import ceil_div

_REVERB_SAMPLES = 4_800  # 0.3 s at 16 kHz


def corrupt(pcm: Tensor, generator: torch.Generator, share: float = 0.7) -> Tensor:
    """Put a share of the batch into other rooms, before other microphones.

    Adds reverberation, spectral tilt, coloured noise, other voices and gain.

    Args:
        pcm: float32 ``[B, S]``, clean.
        generator: source of all randomness.
        share: probability that a row is changed.

    Returns:
        float32 ``[B, S]`` in [-1, 1], aligned with the input.
    """
    rows, samples = pcm.shape
    device = pcm.device

    # Drawn on the CPU whatever the device, so that a seed means the same everywhere.
    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(rows, 1, generator=generator).to(device)

    def normal(length: int) -> Tensor:
        return torch.randn(rows, length, generator=generator).to(device)

    # A fast length that leaves room for the tail.
    size = ceil_div(samples + _REVERB_SAMPLES, 2048) * 2048
    frequency = torch.linspace(1e-4, 1.0, size // 2 + 1, device=device)
    spectrum = torch.fft.rfft(pcm, n=size)
    # A worked example of a room: with 0.05 the tail falls to 1 / e in 50 ms, and to -60 dB in 6.9 *
    # 50 = 345 ms, as in a furnished office. 0.01 is a car, 0.08 a kitchen.
    decay = torch.exp(
        -torch.arange(_REVERB_SAMPLES, device=device) / (16_000 * uniform(0.01, 0.08))
    )
    room = normal(_REVERB_SAMPLES) * decay
    # Reflections begin 2 ms after the direct sound, which is the 1 at the first place. Half of the
    # rows have none.
    room = functional.pad(room[:, 32:], (32, 0)) * uniform(0.02, 0.12) * (uniform(0, 1) < 0.5)
    room[:, 0] = 1.0
    # A power of the frequency is a straight line in dB over octaves: 0.25 is 1.5 dB an octave, up
    # or down, as one microphone differs from another.
    colour = frequency ** uniform(-0.25, 0.25)
    dirty = torch.fft.irfft(spectrum * torch.fft.rfft(room, n=size) * colour, n=size)[:, :samples]
    # -1 falls by 6 dB an octave, as of a street heard through a window; 0 is white.
    noise_shape = frequency ** uniform(-1.0, 0.2)
    noise = normal(samples)
    noise = torch.fft.irfft(torch.fft.rfft(noise, n=size) * noise_shape, n=size)[:, :samples]
    # Other rows of the batch talk in the background, one of them backwards: as loud as people, and
    # without words that could be learned.
    babble = pcm.roll(1, 0) + 0.7 * pcm.roll(3, 0).flip(1)
    noise = torch.where(uniform(0, 1) < 0.2, babble, noise)
    level = dirty.square().mean(1, keepdim=True).sqrt() / noise.square().mean(
        1, keepdim=True
    ).sqrt().clamp_min(1e-6)
    # `level` makes noise as loud as speech; from there it goes down by 6 to 40 dB.
    dirty = dirty + noise * level * 10 ** (-uniform(6.0, 40.0) / 20)
    dirty = (dirty * 10 ** (uniform(-12.0, 4.0) / 20)).clamp(-1.0, 1.0)
    return torch.where(uniform(0, 1) < share, dirty, pcm)
