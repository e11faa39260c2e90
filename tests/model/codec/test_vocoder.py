"""The vocoder says the pitch it is told, in the spectrum it is told."""

from __future__ import annotations

import torch

from model.codec.vocoder import LOWEST_HZ, Vocoder
from model.training.pitch import estimate_pitch


def make(octaves: float, voiced: float, hops: int = 100) -> torch.Tensor:
    """Speak one steady sound, ``[1, 160 * hops]``."""
    torch.manual_seed(0)
    vocoder = Vocoder(4)
    with torch.no_grad():
        vocoder.spectra.weight.zero_()
        vocoder.spectra.bias[:80] = torch.linspace(-2.0, -5.0, 80)
        vocoder.spectra.bias[80:] = -9.0 if voiced else -3.0
        x = torch.zeros(1, hops, 4)
        wave: torch.Tensor
        wave, _ = vocoder(
            x, vocoder.init_state(1), torch.full((1, hops), octaves), torch.full((1, hops), voiced)
        )
    return wave


def test_voiced_sound_has_the_pitch() -> None:
    """The wave's own pitch is the one asked for, within 2 %."""
    for octaves in (0.8, 1.5, 2.2):
        pitch, voiced = estimate_pitch(make(octaves, 1.0))
        assert voiced[:, 20:80].all()
        assert (pitch[:, 20:80] - octaves).abs().max() < 0.03, (octaves, LOWEST_HZ)


def test_unvoiced_sound_has_none() -> None:
    """Noise is not taken for a voice."""
    _, voiced = estimate_pitch(make(1.0, 0.0))
    assert voiced[:, 20:80].float().mean() < 0.1


def test_pulses_do_not_alias() -> None:
    """A flat harmonic spectrum stays within the band: no energy folds back between harmonics."""
    wave = make(2.0, 1.0, hops=200)[0, 8000:24000]
    spectrum = torch.fft.rfft(wave * torch.hann_window(16000)).abs()
    harmonics = torch.arange(220, 7700, 220)
    on = spectrum[harmonics].mean()
    between = spectrum[harmonics + 110].mean()
    assert between < 0.02 * on
