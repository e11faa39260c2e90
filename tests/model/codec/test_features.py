"""Log-mel features: a sine lands in its band, and hop t knows nothing later."""

from __future__ import annotations

import math

import torch

from model.codec.features import HOP_SAMPLES, NUM_MELS, SAMPLE_RATE_HZ, LogMel, mel_filterbank


def test_every_mel_band_hears_something() -> None:
    """No filter is empty, however narrow."""
    assert (mel_filterbank(NUM_MELS, 257, SAMPLE_RATE_HZ).sum(0) > 0).all()


def test_higher_tones_land_in_higher_bands() -> None:
    """The loudest band rises with frequency."""
    mel, time = LogMel(), torch.arange(3200) / SAMPLE_RATE_HZ
    loudest = []
    for hertz in (200.0, 800.0, 3000.0, 6500.0):
        features, _ = mel(
            torch.sin(2 * math.pi * hertz * time)[None], torch.zeros(1, *mel.context_shape)
        )
        loudest.append(int(features[0, 10].argmax()))
    assert loudest == sorted(set(loudest))


def test_hops_are_causal() -> None:
    """Changing samples after a hop's end does not change the hop."""
    mel, pcm = LogMel(), torch.randn(1, 10 * HOP_SAMPLES)
    zero = torch.zeros(1, *mel.context_shape)
    before, _ = mel(pcm, zero)
    pcm[:, 5 * HOP_SAMPLES :] = 0
    after, _ = mel(pcm, zero)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.equal(before[:, 5], after[:, 5])


def test_digital_silence_has_a_finite_gradient() -> None:
    """Training compares silent output too: its gradient must not be NaN."""
    mel, pcm = LogMel(), torch.zeros(1, 4 * HOP_SAMPLES, requires_grad=True)
    mel(pcm, torch.zeros(1, *mel.context_shape))[0].sum().backward()
    assert pcm.grad is not None
    assert pcm.grad.isfinite().all()
