"""Under which conditions the starter is scored, and the conversations that are held in each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from model.messages import Tool
from model.training.skills import (
    Conversation,
    Dialogue,
    pictures,
    sample_conversation,
    sample_dialogue,
)

VoiceSet = Literal["known", "held out", "neural", "joe"]
"""Voices of training; those kept out of it: of the older synthesisers, of Kokoro, and Piper's."""


@dataclass(frozen=True, slots=True)
class Condition:
    """How the user's turns reach the model.

    Attributes:
        name: how the report calls it.
        voices: which voices speak; None for typed text.
        snr_db: loudness of the speech above added noise; None for none.
    """

    name: str
    voices: VoiceSet | None
    snr_db: float | None = None


CONDITIONS = (
    Condition("known voices, clean", "known"),
    Condition("known voices, noise 10 dB", "known", 10.0),
    Condition("held-out voices, clean", "held out"),
    Condition("held-out voices, noise 10 dB", "held out", 10.0),
    Condition("typed", None),
    Condition("held-out neural voices, clean", "neural"),
    Condition("held-out neural voices, noise 10 dB", "neural", 10.0),
    Condition("second synthesiser, clean", "joe"),
)


STRANGERS = tuple(
    condition.name
    for condition in CONDITIONS
    if condition.voices not in (None, "known") and condition.snr_db is None
)
"""Names of those in which voices that training never heard speak clearly."""


@dataclass(frozen=True, slots=True)
class Case:
    """One conversation to be held.

    Attributes:
        number: seeds everything that is drawn for it, so it does not depend on the other cases.
        voice: the assistant's voice.
    """

    number: int
    dialogue: Dialogue
    voice: str
    instructions: str = ""
    tools: tuple[Tool, ...] = ()


def draw_cases(
    num_dialogues: int,
    seed: int,
    voices: Sequence[str],
    *,
    is_taught: bool = False,
    sees: bool = False,
) -> list[Case]:
    """Draw conversations of the eval split; the assistant's voices take turns.

    They depend on nothing else: conditions differ in sound, never in what is said.

    Args:
        num_dialogues: how many.
        seed: of all of them.
        voices: of the assistant.
        is_taught: whether the model was taught more than to answer questions, so that instructions
            and functions lead the conversations.
        sees: whether pictures are shown in them, to a model that was taught more.
    """
    cases = []
    for number in range(num_dialogues):
        rng = Random(f"{seed}/{number}")
        talk = _taught(rng, sees=sees) if is_taught else Conversation(sample_dialogue(rng, "eval"))
        voice = voices[number % len(voices)]
        cases.append(Case(number, talk.turns, voice, talk.instructions, talk.tools))
    return cases


def _taught(rng: Random, *, sees: bool) -> Conversation:
    """Draw a conversation, without pictures where nobody sees them."""
    while True:
        talk = sample_conversation(rng, "eval")
        if sees or all(turn.skill != pictures.SKILL for turn in talk.turns):
            return talk
