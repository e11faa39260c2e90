"""New speakers from old ones: another tempo, pitch, vocal tract, breath and melody.

Recorded voices are few, so each stands for many people: what is said stays, who says it moves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray

from kernels.arithmetic import ceil_div
from model.training.speech.augment import frames_of, from_frames
from model.training.speech.types import SAMPLE_RATE_HZ, Pcm, Phone, Speech, Wave, Word

_FRAME, _HOP = 512, 128
_LIFTER = 32  # cepstral coefficients of a spectral envelope: below the pitch of a high voice
_OVERSAMPLING = 3
_LOWEST_HZ, _HIGHEST_HZ = 75.0, 330.0
_HIGH_VOICE_HZ = 150.0

Rng = np.random.Generator
Times = NDArray[np.float64]


def _with_times(speech: Speech, pcm: Wave, moved: Callable[[float], float]) -> Speech:
    """`speech` as `pcm` float32 of int16's scale, its times mapped by `moved`."""
    end_s = len(pcm) / SAMPLE_RATE_HZ

    def placed(time_s: float) -> float:
        return min(max(moved(time_s), 0.0), end_s)

    words = tuple(Word(w.text, placed(w.start_s), placed(w.end_s)) for w in speech.words)
    phones = [Phone(p.symbol, placed(p.start_s), placed(p.end_s)) for p in speech.phones]
    if phones:
        last = phones[-1]
        phones[-1] = Phone(last.symbol, last.start_s, end_s)
    peak = float(np.abs(pcm).max()) if len(pcm) else 0.0
    scale = min(1.0, 32767.0 / max(peak, 1.0))
    samples: Pcm = np.round(pcm * scale).astype(np.int16)
    return Speech(samples, words, tuple(phones))


def stretched(pcm: Wave, factor: float) -> Wave:
    """Make float32 [samples] `factor` times as long at the same pitch (WSOLA).

    Frames are taken from where the waveform continues best what was already laid down.
    """
    size, hop, reach = 512, 256, 160
    if abs(factor - 1.0) < 1e-3 or len(pcm) < 2 * size:
        return pcm
    length = round(len(pcm) * factor)
    count = ceil_div(length, hop) + 1
    padded = np.pad(pcm, (size + reach, 2 * size + 2 * reach))
    origin = size + reach
    window = np.hanning(size + 1)[:-1].astype(np.float32)
    out = np.zeros(count * hop + size, np.float32)
    start = origin - hop
    last = len(padded) - size - hop - 1
    # A worked example with a factor of 1.25, half a window of 256 samples a step. Frame 4 should
    # come from (4 - 1) * 256 / 1.25 = 614 samples into the sound, within 160 of it. Taken is the
    # place at which the wave goes on most like the frame before did, so that no period of the voice
    # is cut in two.
    # Source: Verhelst and Roelands 1993, "An overlap-add technique based on waveform similarity
    # (WSOLA)".
    for index in range(count):
        wanted = origin + round((index - 1) * hop / factor)
        if index:
            follows = padded[start + hop : start + hop + size]
            region = padded[max(wanted - reach, 0) : min(wanted + reach, last) + size]
            scores = np.correlate(region[::2], follows[::2], "valid")  # half the rate is enough
            start = max(wanted - reach, 0) + 2 * int(np.argmax(scores))
        start = min(start, last)
        out[index * hop : index * hop + size] += window * padded[start : start + size]
    return out[hop : hop + length]


@dataclass(frozen=True, slots=True)
class NewSpeaker:
    """How the new speaker differs from the old one.

    `pitch`, `formants` and `tempo` (of the sound, not of durations) are factors; `tilt_db` is a
    change per octave around 1 kHz; above `breath_hz` the voice is noise; `melody` is the relative
    depth of slow pitch swings.
    """

    pitch: float
    formants: float
    tempo: float
    tilt_db: float
    breath_hz: float
    melody: float


def draw_speaker(rng: Rng, f0_hz: float) -> NewSpeaker:
    """Draw someone who may exist, given the old speaker's median pitch (0 if unknown).

    Long vocal tracts go with low voices, as in people: from a low voice formants rather rise,
    from a high one they rather fall.
    """
    least, most = (0.82, 1.06) if f0_hz > _HIGH_VOICE_HZ else (0.93, 1.2)
    formants = float(np.exp(rng.uniform(np.log(least), np.log(most))))
    # A vocal tract that is a tenth shorter has formants 11 % higher, and voices of such people are
    # higher as well, by 5 to 30 %. On top comes a chance of two semitones either way.
    pitch = formants ** float(rng.uniform(0.5, 2.5)) * float(2 ** (rng.normal(0.0, 2.0) / 12))
    if f0_hz > 0.0:
        pitch = float(np.clip(pitch, _LOWEST_HZ / f0_hz, _HIGHEST_HZ / f0_hz))
    return NewSpeaker(
        pitch=float(np.clip(pitch, 0.62, 1.6)),
        formants=formants,
        tempo=float(np.exp(rng.uniform(np.log(0.9), np.log(1.1)))),
        tilt_db=float(rng.normal(0.0, 1.5)),
        breath_hz=float(rng.uniform(1500.0, 5000.0)) if rng.random() < 0.35 else 8000.0,
        melody=float(rng.uniform(0.0, 0.05)),
    )


def median_f0(pcm: Wave) -> float:
    """Median fundamental frequency in hertz of the voiced frames, 0 when there is none."""
    # A quarter of the rate is enough: what is wanted is the speaker, not the melody.
    factor, size, hop = 4, 256, 160
    rate_hz = SAMPLE_RATE_HZ / factor
    slow = pcm[: len(pcm) // factor * factor].reshape(-1, factor).mean(axis=1)
    if len(slow) < size:
        return 0.0
    window = np.hanning(size).astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(slow, size)[::hop] * window
    power = np.abs(np.fft.rfft(frames, 2 * size, axis=1)) ** 2
    correlation = np.fft.irfft(power, axis=1)[:, : size // 2]
    energy = correlation[:, 0]
    lags = slice(int(rate_hz / 400), int(rate_hz / 60))
    rows = np.arange(len(correlation))
    best = np.argmax(correlation[:, lags], axis=1) + lags.start
    # Two periods are as alike as one: if half the lag is nearly as good, it is the period.
    near = np.maximum(best // 2, lags.start)[:, None] + np.arange(2)
    half = near[rows, np.argmax(correlation[rows[:, None], near], axis=1)]
    best = np.where(correlation[rows, half] > 0.85 * correlation[rows, best], half, best)
    strength = correlation[rows, best] / np.maximum(energy, 1e-9)
    voiced = (strength > 0.45) & (energy > energy.max() * 0.02)
    return float(rate_hz / np.median(best[voiced])) if voiced.any() else 0.0


def _swings(length: int, rng: Rng, speaker: NewSpeaker) -> tuple[Times, Times]:
    """Where each sample of the repitched audio comes from: (places, knots of the way back).

    Played faster means higher. The rate swings slowly by `melody` around `pitch`.
    """
    knots = max(2, round(length / SAMPLE_RATE_HZ / 0.35) + 1)
    rates = speaker.pitch * np.exp(speaker.melody * rng.standard_normal(knots))
    grid = np.linspace(0, length, 16 * (knots - 1) + 1)
    rate = np.interp(grid, np.linspace(0, length, knots), rates)
    slowness = 1 / rate
    # Where the rate is 1.2, 1,200 samples of the old sound are played in the time of 1,000. The
    # running sum of 1 / rate says when each place of the old sound arrives, and the times of words
    # are read off it.
    steps = np.diff(grid) * (slowness[1:] + slowness[:-1]) / 2
    arrivals = np.concatenate([[0.0], np.cumsum(steps)])
    return grid, arrivals


def _envelope_moved(pcm: Wave, rng: Rng, ratio: float, speaker: NewSpeaker) -> Wave:
    """Shift the formants by `ratio`, tilt the spectrum and add breath."""
    spectra = frames_of(pcm, _FRAME, _HOP)
    bins = _FRAME // 2 + 1
    log_magnitude = np.log(np.abs(spectra) + 1e-3 * max(float(np.abs(spectra).max()), 1e-6) * 1e-2)
    # The first 32 coefficients of the cepstrum are the slow curve of a spectrum, the formants; the
    # others are the fine lines of the pitch. Only the curve is moved.
    cepstra = np.fft.irfft(log_magnitude, axis=1)
    cepstra[:, _LIFTER : _FRAME - _LIFTER + 1] = 0.0
    envelope = np.fft.rfft(cepstra, axis=1).real
    source = np.minimum(np.arange(bins) / ratio, bins - 1.0)
    below = np.minimum(source.astype(np.int64), bins - 2)
    share = (source - below).astype(np.float32)
    warped = envelope[:, below] * (1 - share) + envelope[:, below + 1] * share
    octaves = np.log2(np.maximum(np.arange(bins) / _FRAME * SAMPLE_RATE_HZ, 125.0) / 1000.0)
    gain_db = np.clip((warped - envelope) * (20 / np.log(10)), -24.0, 24.0)
    gain = 10 ** ((gain_db + speaker.tilt_db * octaves) / 20)
    moved = spectra * gain.astype(np.float32)
    first = round(speaker.breath_hz / SAMPLE_RATE_HZ * _FRAME)
    if first < bins:
        angles = rng.uniform(-np.pi, np.pi, (len(moved), bins - first)).astype(np.float32)
        # Overlapping frames of random phase lose power when added; what they lose is put back.
        moved[:, first:] *= (1.6 * np.exp(1j * angles)).astype(np.complex64)
    return from_frames(moved.astype(np.complex64), _FRAME, _HOP, len(pcm))


def as_speaker(speech: Speech, speaker: NewSpeaker, rng: Rng) -> Speech:
    """Say `speech` as `speaker` would; times of words and phones follow."""
    pcm = speech.pcm.astype(np.float32)
    grid, arrivals = _swings(len(pcm), rng, speaker)
    length = int(arrivals[-1])
    places = np.interp(np.arange(length), arrivals, grid)
    if speaker.pitch > 1.0:  # faster playing pushes the top over the band's edge
        fine = soxr.resample(
            soxr.resample(pcm, SAMPLE_RATE_HZ, SAMPLE_RATE_HZ / speaker.pitch, "MQ"),
            1.0,
            _OVERSAMPLING * speaker.pitch,
            "MQ",
        )
    else:
        fine = soxr.resample(pcm, 1.0, _OVERSAMPLING, "MQ")
    repitched = np.interp(places * _OVERSAMPLING, np.arange(len(fine)), fine).astype(np.float32)
    factor = len(pcm) / length / speaker.tempo
    spoken = stretched(repitched, factor)
    scale = len(spoken) / length
    spoken = _envelope_moved(spoken, rng, speaker.formants / speaker.pitch, speaker)
    before = float(np.sqrt(np.mean(pcm**2)))
    after = float(np.sqrt(np.mean(spoken**2)))
    if after > 0.0:
        spoken *= np.float32(min(before / after, 30000.0 / float(np.abs(spoken).max())))

    def moved(time_s: float) -> float:
        arrival = float(np.interp(time_s * SAMPLE_RATE_HZ, grid, arrivals))
        return arrival * scale / SAMPLE_RATE_HZ

    return _with_times(speech, spoken, moved)


def perturb_voice(speech: Speech, rng: Rng) -> Speech:
    """Let a new speaker, drawn from `rng`, say `speech`."""
    speaker = draw_speaker(rng, median_f0(speech.pcm.astype(np.float32)))
    return as_speaker(speech, speaker, rng)
