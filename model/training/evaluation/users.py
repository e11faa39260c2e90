"""The users of an evaluation: who speaks, and the audio that reaches the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

import numpy as np

from model.training.evaluation.conditions import VoiceSet
from model.training.evaluation.conversation import Wave
from model.training.speech.types import SAMPLE_RATE_HZ, Speech, SynthesisError
from model.training.speech.voices import (
    HELD_OUT_NEURAL_VOICES,
    HELD_OUT_VOICES,
    MIXED,
    SECOND_SYNTHESISER,
    TRAIN_VOICES,
    Voice,
    synthesise,
)
from model.training.synthesis import FOREIGN

LEAD_S = 0.2
TAIL_S = 0.6
"""Silence around the words: what a voice detector at the gateway leaves before it commits."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """A user turn as audio.

    Attributes:
        pcm: float32 [samples] at 16 kHz in [-1, 1], silence at both ends included.
        end_ms: where its last word ends.
        words: each with its start and end in seconds of `pcm`; empty if nobody knows them.
    """

    pcm: Wave
    end_ms: int
    words: tuple[tuple[str, float, float], ...] = ()


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

        Args:
            voice: as chosen, or "foreign" and a language.
            text: what is said.

        Raises:
            SynthesisError: this voice cannot say it.
        """
        ...


# The shipped weights were trained before Kokoro's voices joined the recipe, as all were that know
# no prompts. Mixes of voices are drawn anew every time; nobody is one.
HEARD_IN_TRAINING = tuple(voice for voice in TRAIN_VOICES if voice.engine != "kokoro")
HEARD_BY_TAUGHT = tuple(voice for voice in TRAIN_VOICES if voice.engine_voice != MIXED)

STRANGERS: Mapping[VoiceSet, Sequence[Voice]] = {
    "held out": HELD_OUT_VOICES,
    "neural": HELD_OUT_NEURAL_VOICES,
    "joe": SECOND_SYNTHESISER,
}


class SynthesisedUsers:
    """Users spoken by the synthesisers that also made the training data.

    Voices known from training are drawn by their training weight, those held out take turns. All
    are played plainly, without the changes of pitch and tempo that training adds.
    """

    def __init__(
        self,
        known: Sequence[Voice] = HEARD_IN_TRAINING,
        strangers: Mapping[VoiceSet, Sequence[Voice]] = STRANGERS,
        synthesiser: Callable[[Voice, str], Speech] = synthesise,
    ) -> None:
        self._known, self._strangers = known, strangers
        every = [voice for voices in strangers.values() for voice in voices]
        self._voices = {voice.name: voice for voice in (*known, *every)}
        self._synthesise = synthesiser
        self._present: dict[VoiceSet, tuple[str, ...]] = {}
        # A conversation is held under several conditions, and slow synthesisers are slow.
        self._spoken: dict[tuple[str, str], Spoken] = {}

    def skipped(self, voices: VoiceSet) -> tuple[str, ...]:
        """Name the held-out voices whose synthesiser is missing; see `Users`."""
        if voices == "known":
            return ()
        present = self._that_speak(voices)
        return tuple(voice.name for voice in self._strangers[voices] if voice.name not in present)

    def choose(self, voices: VoiceSet, seed: int, number: int) -> str:
        """Choose who holds conversation `number`; see `Users`.

        Raises:
            SynthesisError: no voice of the set can speak on this machine.
        """
        if voices == "known":
            weights = [voice.weight for voice in self._known]
            return Random(f"{seed}/{number}/user").choices(self._known, weights)[0].name
        present = self._that_speak(voices)
        if not present:
            names = ", ".join(voice.name for voice in self._strangers[voices])
            raise SynthesisError(
                f"none of these held-out voices can speak on this machine: {names}"
            )
        # Shifted every round: the assistant's voices take turns too, and all pairs are to meet.
        count = len(present)
        # With four voices and four assistants, conversation 4 has voice (4 + 1) % 4 = 1 and
        # assistant 0, where conversation 0 had voice 0. Without the shift both would go around in
        # step, and only four of sixteen pairs would ever meet.
        return present[(number + number // count) % count]

    def group(self, voice: str) -> str:
        """Count the many espeak-ng voices of training as one; see `Users`."""
        is_known = any(known.name == voice for known in self._known)
        return "espeak-ng" if is_known and self._voices[voice].engine == "espeak" else voice

    def speak(self, voice: str, text: str) -> Spoken:
        """Synthesise a user turn between two silences; see `Users`."""
        key = (voice, text)
        if key not in self._spoken:
            language = voice.removeprefix(FOREIGN).strip()
            who = (
                Voice(voice, "espeak", language)
                if voice.startswith(FOREIGN)
                else self._voices[voice]
            )
            self._spoken[key] = _between_silences(self._synthesise(who, text))
        return self._spoken[key]

    def _that_speak(self, voices: VoiceSet) -> tuple[str, ...]:
        # Asked when a condition begins: an absent neural voice is no matter to typed text.
        if voices not in self._present:
            able = (v.name for v in self._strangers[voices] if self._can_speak(v))
            self._present[voices] = tuple(able)
        return self._present[voices]

    def _can_speak(self, voice: Voice) -> bool:
        try:
            self._synthesise(voice, "hello there")
        except SynthesisError:
            return False
        return True


def _between_silences(speech: Speech) -> Spoken:
    lead, tail = (round(seconds * SAMPLE_RATE_HZ) for seconds in (LEAD_S, TAIL_S))
    pcm = np.zeros(lead + len(speech.pcm) + tail, np.float32)
    pcm[lead : lead + len(speech.pcm)] = speech.pcm / np.float32(32768)
    end_s = speech.words[-1].end_s if speech.words else speech.duration_s
    words = tuple((w.text, w.start_s + LEAD_S, w.end_s + LEAD_S) for w in speech.words)
    return Spoken(pcm, round(1000 * (LEAD_S + end_s)), words)
