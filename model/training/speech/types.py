"""What a synthesiser returns: audio with the times of its words and phones."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from model.errors import ParleyError

SAMPLE_RATE_HZ = 16_000

Pcm = NDArray[np.int16]
Wave = NDArray[np.float32]

SILENCE = "pau"

# flite's US English set. Every voice is labelled with these, whatever phones it uses itself. So one
# classifier can be trained for all voices.
PHONES: tuple[str, ...] = (
    SILENCE,
    "aa",
    "ae",
    "ah",
    "ao",
    "aw",
    "ax",
    "ay",
    "b",
    "ch",
    "d",
    "dh",
    "eh",
    "er",
    "ey",
    "f",
    "g",
    "hh",
    "ih",
    "iy",
    "jh",
    "k",
    "l",
    "m",
    "n",
    "ng",
    "ow",
    "oy",
    "p",
    "r",
    "s",
    "sh",
    "t",
    "th",
    "uh",
    "uw",
    "v",
    "w",
    "y",
    "z",
    "zh",
)

VOWELS = frozenset(
    ("aa", "ae", "ah", "ao", "aw", "ax", "ay", "eh", "er", "ey", "ih", "iy", "ow", "oy", "uh", "uw")
)


class SynthesisError(ParleyError):
    """A text could not be spoken: an engine is missing, refused the voice, or failed."""


@dataclass(frozen=True, slots=True)
class Word:
    """One word of the text, in seconds from the first sample."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Phone:
    """One phone, a member of `PHONES`, in seconds from the first sample."""

    symbol: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Speech:
    """A spoken text.

    `pcm` is int16 [samples] at 16 kHz. `phones` tile the audio from 0 to its end without gaps
    (silence is `pau`); `words` are in order and do not overlap.
    """

    pcm: Pcm = field(repr=False)
    words: tuple[Word, ...]
    phones: tuple[Phone, ...]

    @property
    def duration_s(self) -> float:
        """Length of the audio in seconds."""
        return len(self.pcm) / SAMPLE_RATE_HZ
