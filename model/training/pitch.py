"""Pitch of clean speech, for training targets: batched autocorrelation, no state."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from model.codec.features import HOP_SAMPLES, SAMPLE_RATE_HZ
from model.codec.vocoder import HIGHEST_HZ, LOWEST_HZ

_WINDOW = 800  # 50 ms: nearly three periods at the lowest pitch
_FFT = 1152  # at least window + longest lag, so that the correlation does not wrap
_SHORTEST = int(SAMPLE_RATE_HZ / HIGHEST_HZ)
_LONGEST = int(SAMPLE_RATE_HZ / LOWEST_HZ)
_CLARITY = 0.6  # normalised autocorrelation at the pitch lag, from which a hop counts as voiced
_QUIET = 1e-3  # RMS re full scale, under which nothing is voiced


def estimate_pitch(pcm: Tensor) -> tuple[Tensor, Tensor]:
    """Estimate pitch and voicing every 10 ms, centred on the hop.

    Source: Boersma 1993, "Accurate short-term analysis of the fundamental frequency"
    (autocorrelation divided by the window's own), with a mild preference for short lags in place of
    path search.

    Args:
        pcm: float32 ``[B, S]`` at 16 kHz, S a multiple of 160.

    Returns:
        Octaves above 55 Hz ``[B, S / 160]``, held through unvoiced hops; and voicing, bool of the
        same shape.
    """
    side = (_WINDOW - HOP_SAMPLES) // 2
    frames = functional.pad(pcm, (side, side)).unfold(1, _WINDOW, HOP_SAMPLES)
    window = torch.hann_window(_WINDOW, device=pcm.device)
    # The autocorrelation of a frame is the inverse transform of its power spectrum. Speech at 100
    # Hz has a peak at the lag 160, 10 ms; a second one at 320 is as high, and stands for 50 Hz.
    spectrum = torch.fft.rfft((frames - frames.mean(-1, keepdim=True)) * window, n=_FFT)
    correlation = torch.fft.irfft(torch.view_as_real(spectrum).square().sum(-1), n=_FFT)[
        ..., : _LONGEST + 2
    ]
    # A window makes long lags look weaker than they are. Divided by the window's own
    # autocorrelation, a steady tone has 1 at every period.
    own = torch.fft.irfft(torch.fft.rfft(window, n=_FFT).abs().square(), n=_FFT)[: _LONGEST + 2]
    normal = correlation / (own / own[0]) / correlation[..., :1].clamp_min(1e-9)
    lags = torch.arange(_LONGEST + 2, device=pcm.device)
    # So the shorter of two peaks of equal height wins: 0.1 less for each doubling of the lag.
    score = normal - 0.1 * torch.log2(lags.clamp_min(1) / _SHORTEST)
    peak = (normal > normal.roll(1, -1)) & (normal >= normal.roll(-1, -1))
    score = score.masked_fill(~peak, -9.0)
    score[..., :_SHORTEST] = -9.0
    score[..., _LONGEST + 1 :] = -9.0
    top, best = score.max(-1, keepdim=True)
    best = best.clamp(_SHORTEST, _LONGEST)
    # A parabola through the peak and its neighbours finds the lag between two samples. With 0.90,
    # 1.00 and 0.96 the bend is -0.14, and the top lies 0.21 to the right: at 160 that is 160.21
    # samples.
    left, middle, right = (normal.gather(-1, best + k) for k in (-1, 0, 1))
    bend = (left - 2 * middle + right).clamp_max(-1e-6)
    lag = best + (0.5 * (left - right) / bend).clamp(-0.5, 0.5)
    loud = frames.square().mean(-1).sqrt() > _QUIET
    voiced = (middle[..., 0] > _CLARITY) & (top[..., 0] > 0.0) & loud
    octaves = torch.log2(SAMPLE_RATE_HZ / lag[..., 0] / LOWEST_HZ).clamp(0.0, 3.0)
    return hold(octaves, voiced), voiced


def hold(octaves: Tensor, voiced: Tensor) -> Tensor:
    """Fill unvoiced hops of ``octaves [B, H]`` with the last voiced value.

    Hops before the first voiced one take that one's.
    """
    hops = torch.arange(octaves.shape[1], device=octaves.device).expand_as(octaves)
    # A worked example: voiced at 2, 3 and 6 of eight hops. `last` is -1 -1 2 3 3 3 6 6, so hops 4
    # and 5 take the pitch of hop 3, and hops 0 and 1 that of hop 2, the first voiced one.
    last = torch.where(voiced, hops, torch.full_like(hops, -1)).cummax(1).values
    first = voiced.int().argmax(1, keepdim=True)
    return octaves.gather(1, torch.where(last < 0, first, last))
