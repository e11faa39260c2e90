"""Make a sound for every word: a buzzing voice with the formants of the word's vowels.

Nobody would understand it, but it is speech to a voice activity detector, it differs from voice to
voice and from word to word, and the same word always sounds the same.

The voice is a sum of harmonics, each as strong as the resonances of the vowel at its frequency;
consonants are short dips, those that hiss with noise. Formants of the vowels: G. E. Peterson and
H. L. Barney, "Control methods used in a study of the vowels", 1952.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt

from model.messages import Pcm


@dataclass(frozen=True, slots=True)
class Voice:
    """Describe who speaks.

    Attributes:
        pitch_hz: of the voice on the average.
        tract: by how much its formants are higher than a man's.
    """

    pitch_hz: float
    tract: float


# The names that clients of the API ask for; the first is the default.
VOICES = {
    "alloy": Voice(165, 1.08),
    "ash": Voice(104, 0.96),
    "ballad": Voice(118, 1.02),
    "cedar": Voice(98, 1.00),
    "coral": Voice(212, 1.18),
    "echo": Voice(124, 0.98),
    "marin": Voice(196, 1.15),
    "sage": Voice(184, 1.12),
    "shimmer": Voice(226, 1.20),
    "verse": Voice(136, 1.04),
}

_VOWELS_HZ = {
    "a": (730, 1090, 2440),
    "e": (530, 1840, 2480),
    "i": (390, 1990, 2550),
    "o": (570, 840, 2410),
    "u": (440, 1020, 2240),
    "y": (270, 2290, 3010),
}
_BANDWIDTHS_HZ = (80, 110, 160)
_HISSING = "cfhjsvxz"
_VOWEL_WEIGHT = 2.5  # how much longer a vowel is than a consonant

_CONTROL_MS = 5
_SMOOTH_CONTROLS = 5  # 25 ms from one sound to the next
_TOP_HZ = 5_500
_VOICED_SHARE = 0.8  # of a word's time; the rest is the pause to the next
_PEAK = 0.5
_FADE_MS = 8

_Track = npt.NDArray[np.floating[Any]]


@lru_cache(maxsize=4096)
def speak_word(voice: str, word: str, num_samples: int, rate_hz: int) -> Pcm:
    """Return the sound of a word and the pause after it.

    Args:
        voice: one of `VOICES`.
        word: any text.
        num_samples: of sound and pause together.
        rate_hz: samples a second, at least 8,000.

    Returns:
        float32 [num_samples], not to be written to.
    """
    pcm = np.zeros(num_samples, dtype=np.float32)
    num_voiced = int(num_samples * _VOICED_SHARE)
    pcm[:num_voiced] = _utter(VOICES[voice], word.casefold(), num_voiced, rate_hz)
    pcm.flags.writeable = False
    return pcm


def _utter(voice: Voice, word: str, num_samples: int, rate_hz: int) -> Pcm:
    # The same word has the same seed in every process, unlike Python's own hash.
    seed = crc32(word.encode())
    num_controls = max(2, num_samples * 1000 // (rate_hz * _CONTROL_MS))
    # [3, C], [C] and [C] over the word's controls, one every 5 ms; `at` says where each sample lies
    # between two of them.
    formants_hz, voicing, hiss = _tracks(word, num_controls)
    at = np.linspace(0, num_controls - 1, num_samples, dtype=np.float32)

    # Words differ a little in pitch, and each falls.
    pitch_hz = voice.pitch_hz * (0.94 + 0.12 * (seed % 100) / 100)
    pitch = pitch_hz * np.linspace(1.06, 0.92, num_controls, dtype=np.float32)
    phase = 2 * np.pi * np.cumsum(_stretched(pitch, at).astype(np.float64)) / rate_hz
    # A worked example: at 165 Hz there are 33 harmonics below 5,500 Hz. Each is a sine at k times
    # the pitch, as strong as the vowel's resonances are there, and weaker by 1 / k as those of a
    # voice are.
    pcm = np.zeros(num_samples, dtype=np.float32)
    # sin(kx) from the two before it: 2 cos(x) sin((k-1)x) - sin((k-2)x).
    twice_cos = 2 * np.cos(phase)
    before, sine = np.zeros(num_samples), np.sin(phase)
    for k in range(1, int(_TOP_HZ / pitch.max()) + 1):
        strength = voicing * _resonance(k * pitch, formants_hz * voice.tract) / k
        pcm += _stretched(strength, at) * sine.astype(np.float32)
        before, sine = sine, twice_cos * sine - before

    noise = np.random.default_rng(seed).standard_normal(num_samples + 1, dtype=np.float32)
    level = float(np.abs(pcm).max()) or 1.0
    pcm += 0.25 * level * _stretched(hiss, at) * np.diff(noise)
    fade = np.minimum(1, np.arange(num_samples, dtype=np.float32) * 1000 / (rate_hz * _FADE_MS))
    pcm *= fade * fade[::-1]
    return pcm * np.float32(_PEAK / max(float(np.abs(pcm).max()), 1e-6))


def _tracks(word: str, num_controls: int) -> tuple[_Track, _Track, _Track]:
    """Return formants [3, C], strength of the voice [C] and of the hiss [C] over a word."""
    sounds = [letter for letter in word if letter.isalnum()]
    if not any(sound in _VOWELS_HZ for sound in sounds):
        sounds = ["a", *sounds, "e"]  # a number, or a sign
    if len(sounds) == 1:
        sounds = ["h", *sounds, "y"]  # one vowel that does not move would be a hum
    weights = np.array([_VOWEL_WEIGHT if sound in _VOWELS_HZ else 1.0 for sound in sounds])
    # A worked example: "hello" is h e l l o with the weights 1, 2.5, 1, 1, 2.5, which are 8 in all.
    # Of 80 controls, h has the first 10, e the next 25, and so on. A consonant keeps the formants
    # of the vowel before it, or those of "a" at the beginning.
    ends = np.cumsum(weights) / weights.sum() * num_controls
    which = np.minimum(np.searchsorted(ends, np.arange(num_controls), side="right"), len(ends) - 1)
    vowel, formants = _VOWELS_HZ["a"], []
    for sound in sounds:
        vowel = _VOWELS_HZ.get(sound, vowel)
        formants.append(vowel)
    voicing = [1.0 if sound in _VOWELS_HZ else 0.35 for sound in sounds]
    hiss = [1.0 if sound in _HISSING else 0.0 for sound in sounds]
    per_sound = np.column_stack((np.array(formants), voicing, hiss))  # [sounds, 5]
    tracks = np.stack([_smooth(track) for track in per_sound[which].T])
    return tracks[:3], tracks[3], tracks[4]


def _resonance(frequency_hz: _Track, formants_hz: _Track) -> _Track:
    """Say how strongly the formants [3, C] let frequencies [C] through."""
    strength = np.zeros_like(frequency_hz)
    for formant_hz, bandwidth_hz in zip(formants_hz, _BANDWIDTHS_HZ, strict=True):
        strength += 1 / (1 + ((frequency_hz - formant_hz) / bandwidth_hz) ** 2)
    return strength + np.float32(0.03)


def _smooth(track: npt.NDArray[np.float64]) -> _Track:
    half = _SMOOTH_CONTROLS // 2
    padded = np.pad(track, half, mode="edge")
    window = np.full(_SMOOTH_CONTROLS, 1 / _SMOOTH_CONTROLS)
    return np.convolve(padded, window, mode="valid").astype(np.float32)


def _stretched(track: _Track, at: _Track) -> _Track:
    """Read a track at fractional places."""
    return np.interp(at, np.arange(len(track)), track).astype(np.float32)
