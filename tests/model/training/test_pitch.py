"""The pitch estimate follows a glide and holds through silence."""

from __future__ import annotations

import math

import torch

from model.codec.vocoder import LOWEST_HZ
from model.training.pitch import estimate_pitch, hold


def test_glide_is_followed() -> None:
    """A gliding harmonic tone is tracked within a semitone quarter."""
    hertz = torch.linspace(90, 300, 16000)
    phase = 2 * math.pi * torch.cumsum(hertz / 16000, 0)
    harmonics = (torch.sin(k * phase) / k for k in range(1, 12))
    wave = sum(harmonics, start=torch.zeros_like(phase)) * 0.1
    octaves, voiced = estimate_pitch(wave[None])
    truth = torch.log2(hertz[80::160] / LOWEST_HZ)
    assert voiced[0, 5:95].all()
    assert (octaves[0, 5:95] - truth[5:95]).abs().max() < 0.05


def test_silence_is_unvoiced() -> None:
    """Digital silence has no pitch, and no NaN."""
    octaves, voiced = estimate_pitch(torch.zeros(1, 3200))
    assert not voiced.any()
    assert octaves.isfinite().all()


def test_hold_fills_gaps() -> None:
    """Unvoiced hops keep the last voiced pitch; leading ones take the first."""
    octaves = torch.tensor([[9.0, 1.0, 9.0, 9.0, 2.0, 9.0]])
    voiced = torch.tensor([[False, True, False, False, True, False]])
    assert hold(octaves, voiced).tolist() == [[1.0, 1.0, 1.0, 1.0, 2.0, 2.0]]
