"""Make a recording so that nobody could say what was said: what the model is not to guess at."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from model.training.skills.unheard import WAYS
from model.training.speech.augment import NOISES, babble, speech_power
from model.training.speech.types import SAMPLE_RATE_HZ, Wave

Rng = np.random.Generator

_LEVEL_DB = (-45.0, -15.0)  # of noise alone, full scale 0
_MOST_KNOCKS = 6
_HALF_S = (0.07, 0.22)  # of a word
_DROWNED_DB = (-14.0, -6.0)  # speech above noise
_CROWD = (4, 8)  # voices at once, none of them in front
_FADE_S = 0.01


def spoil(pcm: Wave, way: str, rng: Rng, others: Sequence[Wave] = ()) -> Wave:
    """Spoil float32 [samples] at 16 kHz; the length stays.

    Args:
        pcm: speech.
        way: "noise" leaves nothing of it; "babble" puts a crowd in its place; "half" leaves a part
            of a word; "drowned" puts it far below a noise.
        rng: everything random is drawn from it.
        others: other utterances, of which a crowd is made; without any it is a noise.

    Raises:
        ValueError: there is no such way.
    """
    if way in WAYS and not len(pcm):
        return pcm
    match way:
        case "noise":
            spoilt = _noise(len(pcm), rng)
        case "babble":
            spoilt = _crowd(len(pcm), rng, others) if others else _noise(len(pcm), rng)
        case "half":
            spoilt = _half(pcm, rng)
        case "drowned":
            spoilt = _drowned(pcm, rng, others)
        case _:
            raise ValueError(f"no such way to spoil speech: {way!r}")
    peak = float(np.abs(spoilt).max(initial=0.0))
    return spoilt if peak <= 1.0 else spoilt / np.float32(peak)


def _noise(length: int, rng: Rng) -> Wave:
    make: Callable[[int, Rng], Wave] = NOISES[int(rng.integers(len(NOISES)))]
    noise = make(length, rng)
    power = float(np.mean(noise**2)) or 1.0
    noise = noise * np.float32(10 ** (rng.uniform(*_LEVEL_DB) / 20) / power**0.5)
    for _ in range(int(rng.integers(0, _MOST_KNOCKS))):
        _add_knock(noise, rng)
    return noise.astype(np.float32)


def _add_knock(pcm: Wave, rng: Rng) -> None:
    """A door, a cup, a key: a burst that rings a little."""
    length = min(int(rng.uniform(0.02, 0.25) * SAMPLE_RATE_HZ), len(pcm))
    if length < 2:
        return
    time = np.arange(length, dtype=np.float32) / SAMPLE_RATE_HZ
    # A tone and some noise that die away together: 15 a second is a door, 120 a key on a table.
    ring = np.sin(2 * np.pi * rng.uniform(120, 3000) * time) + 0.7 * rng.standard_normal(length)
    knock = ring * np.exp(-time * rng.uniform(15, 120)) * rng.uniform(0.02, 0.4)
    at = int(rng.integers(len(pcm) - length + 1))
    pcm[at : at + length] += knock.astype(np.float32)


def _crowd(length: int, rng: Rng, others: Sequence[Wave]) -> Wave:
    crowd = babble(length, rng, others, int(rng.integers(*_CROWD)))
    power = speech_power(crowd) or 1.0
    level = np.float32(10 ** (rng.uniform(-40.0, -18.0) / 20) / power**0.5)
    spoilt: Wave = (crowd * level).astype(np.float32)
    return spoilt


def _half(pcm: Wave, rng: Rng) -> Wave:
    """Keep a part of a word that is loud enough to be one, and silence around it."""
    length = min(round(rng.uniform(*_HALF_S) * SAMPLE_RATE_HZ), len(pcm))
    loud = np.flatnonzero(np.abs(pcm) > 0.3 * np.abs(pcm).max(initial=0.0))
    middle = int(loud[int(rng.integers(len(loud)))]) if len(loud) else len(pcm) // 2
    start = min(max(middle - length // 2, 0), len(pcm) - length)
    spoilt = np.zeros_like(pcm)
    part = pcm[start : start + length].copy()
    fade = min(round(_FADE_S * SAMPLE_RATE_HZ), length // 2)
    ramp = np.linspace(0.0, 1.0, fade, dtype=np.float32)
    part[:fade] *= ramp
    part[length - fade :] *= ramp[::-1]
    spoilt[start : start + length] = part
    return spoilt


def _drowned(pcm: Wave, rng: Rng, others: Sequence[Wave]) -> Wave:
    is_crowd = len(others) > 0 and rng.random() < 0.4
    if is_crowd:
        noise = babble(len(pcm), rng, others, int(rng.integers(*_CROWD)))
    else:
        make = NOISES[int(rng.integers(len(NOISES)))]
        noise = make(len(pcm), rng)
    power, noise_power = speech_power(pcm), float(np.mean(noise**2))
    if power == 0.0 or noise_power == 0.0:
        return noise
    # With 10 dB the noise is ten times as strong as the speech: a voice is heard, and no word.
    gain = (power / noise_power) ** 0.5 * 10 ** (-rng.uniform(*_DROWNED_DB) / 20)
    drowned: Wave = (pcm + np.float32(gain) * noise) * np.float32(10 ** (rng.uniform(-20, -6) / 20))
    return drowned
