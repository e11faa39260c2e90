"""The users of an evaluation: who speaks, and the audio that reaches the model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Protocol

import numpy as np

from model.training.evaluation.conditions import VoiceSet
from model.training.evaluation.conversation import Wave
from model.training.speech.types import SAMPLE_RATE_HZ, SynthesisError
from model.training.speech.voices import HELD_OUT_VOICES, TRAIN_VOICES, Voice, synthesise

LEAD_S = 0.2
TAIL_S = 0.6
"""Silence around the words: what a voice detector at the gateway leaves before it commits."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """A user turn as audio.

    Attributes:
        pcm: float32 [samples] at 16 kHz in [-1, 1], silence at both ends included.
        end_ms: where its last word ends.
    """

    pcm: Wave
    end_ms: int


class Users(Protocol):
    """Whoever speaks to the model."""

    def skipped(self, voices: VoiceSet) -> tuple[str, ...]:
        """Name the voices of the set that cannot speak on this machine."""
        ...

    def choose(self, voices: VoiceSet, seed: int, number: int) -> str:
        """Choose who holds conversation `number`."""
        ...

    def group(self, voice: str) -> str:
        """Name the row of the report that a voice counts for."""
        ...

    def speak(self, voice: str, text: str) -> Spoken:
        """Speak a user turn.

        Raises:
            SynthesisError: this voice cannot say it.
        """
        ...


class SynthesisedUsers:
    """Users spoken by the synthesisers that also made the training data.

    Voices known from training are drawn by their training weight, those held out take turns. All
    are played plainly, without the changes of pitch and tempo that training adds.
    """

    def __init__(self) -> None:
        self._voices = {v.name: v for v in (*TRAIN_VOICES, *HELD_OUT_VOICES)}

    def skipped(self, voices: VoiceSet) -> tuple[str, ...]:
        """Name the held-out voices whose synthesiser is missing; see `Users`."""
        if voices == "known":
            return ()
        return tuple(v.name for v in HELD_OUT_VOICES if not _can_speak(v))

    def choose(self, voices: VoiceSet, seed: int, number: int) -> str:
        """Choose who holds conversation `number`; see `Users`."""
        if voices == "known":
            weights = [v.weight for v in TRAIN_VOICES]
            return Random(f"{seed}/{number}/user").choices(TRAIN_VOICES, weights)[0].name
        present = [v for v in HELD_OUT_VOICES if _can_speak(v)]
        if not present:
            raise SynthesisError("none of the held-out voices can speak on this machine")
        # Shifted every round: the assistant's voices take turns too, and all pairs are to meet.
        return present[(number + number // len(present)) % len(present)].name

    def group(self, voice: str) -> str:
        """Count the many espeak-ng voices of training as one; see `Users`."""
        is_held_out = any(v.name == voice for v in HELD_OUT_VOICES)
        return voice if is_held_out or self._voices[voice].engine != "espeak" else "espeak-ng"

    def speak(self, voice: str, text: str) -> Spoken:
        """Synthesise a user turn between two silences; see `Users`."""
        return _speak(self._voices[voice], text)


@lru_cache(maxsize=4096)
def _speak(voice: Voice, text: str) -> Spoken:
    speech = synthesise(voice, text)
    lead, tail = (round(s * SAMPLE_RATE_HZ) for s in (LEAD_S, TAIL_S))
    pcm = np.zeros(lead + len(speech.pcm) + tail, np.float32)
    pcm[lead : lead + len(speech.pcm)] = speech.pcm / np.float32(32768)
    end_s = speech.words[-1].end_s if speech.words else speech.duration_s
    return Spoken(pcm, round(1000 * (LEAD_S + end_s)))


@lru_cache(maxsize=64)
def _can_speak(voice: Voice) -> bool:
    try:
        synthesise(voice, "hello there")
    except SynthesisError:
        return False
    return True
