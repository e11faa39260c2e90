"""What the user said about themselves: a name and a favourite colour, told, corrected, asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Literal

from model.training.skills.phrasing import (
    Core,
    Fact,
    Family,
    Mood,
    Split,
    Turn,
    choose_wording,
    make_cores,
    word_list,
)

SKILL = "memory"
Subject = Literal["name", "colour"]
SUBJECTS: tuple[Subject, ...] = ("name", "colour")

NAMES = word_list(
    """
    anna maria peter paul john david michael thomas daniel robert james william george henry
    edward charles martin simon andrew patrick oliver lucas adam ben sam jack harry oscar victor
    felix hugo max emma sophia olivia julia laura linda susan karen lisa sarah rachel rebecca
    jessica emily alice lucy helen nancy diana monica victoria elena clara nina eva kevin brian
    jason tina
    """
)
COLOURS = word_list(
    "red blue green yellow orange purple pink brown black white grey gold silver turquoise"
)


@dataclass(frozen=True, slots=True)
class Remembered:
    """What the user has told so far in the conversation."""

    name: str | None = None
    colour: str | None = None


_TOLD: dict[Subject, tuple[str, dict[Mood, tuple[str, ...]]]] = {
    "name": (
        "nice to meet you {x}",
        {
            "statement": (
                "my name is {x}",
                "my name's {x}",
                "i am {x}",
                "i'm {x}",
                "my first name is {x}",
                "i am called {x}",
                "people call me {x}",
                "my friends call me {x}",
                "you can call me {x}",
                "this is {x} speaking",
            ),
            "command": ("call me {x}", "remember my name is {x}", "remember that i am {x}"),
        },
    ),
    "colour": (
        "i will remember that your favourite colour is {x}",
        {
            "statement": (
                "my favourite colour is {x}",
                "{x} is my favourite colour",
                "the colour i like best is {x}",
                "the colour i like most is {x}",
                "i like {x} best of all colours",
                "of all colours i like {x} best",
                "i think {x} is the best colour",
                "i love the colour {x}",
                "the best colour for me is {x}",
            ),
            "command": (
                "remember that my favourite colour is {x}",
                "remember my favourite colour is {x}",
                "remember that i like {x} best",
            ),
        },
    ),
}
_CORRECTED: dict[Subject, tuple[str, dict[Mood, tuple[str, ...]]]] = {
    "name": (
        "okay i will call you {x}",
        {
            "statement": (
                "actually my name is {x}",
                "no my name is {x}",
                "sorry my name is really {x}",
                "my name is not that it is {x}",
                "i changed my name to {x}",
                "my real name is {x}",
                "actually i am {x}",
            ),
            "command": ("call me {x} from now on", "change my name to {x}"),
        },
    ),
    "colour": (
        "okay your favourite colour is now {x}",
        {
            "statement": (
                "actually my favourite colour is {x}",
                "no my favourite colour is {x}",
                "i changed my mind my favourite colour is {x}",
                "now i like {x} better",
                "my new favourite colour is {x}",
                "my favourite colour is now {x}",
                "actually i like {x} better",
            ),
            "command": ("change my favourite colour to {x}",),
        },
    ),
}
_ASKED: dict[Subject, dict[Mood, tuple[str, ...]]] = {
    "name": {
        "question": (
            "what is my name",
            "what's my name",
            "who am i",
            "what am i called",
            "what was my name",
            "what did i say my name was",
            "which name did i tell you",
        ),
        "command": ("say my name", "tell me my name", "tell me who i am"),
        "social": (
            "do you know my name",
            "do you remember my name",
            "do you know who i am",
            "do you still know my name",
        ),
    },
    "colour": {
        "question": (
            "what is my favourite colour",
            "what's my favourite colour",
            "which colour do i like best",
            "what colour do i like most",
            "what was my favourite colour",
            "what did i say my favourite colour was",
            "which is my favourite colour",
        ),
        "command": ("tell me my favourite colour", "say my favourite colour"),
        "social": (
            "do you know my favourite colour",
            "do you remember my favourite colour",
            "do you know which colour i like",
            "do you still know my favourite colour",
        ),
    },
}


def _cores(templates: dict[Mood, tuple[str, ...]]) -> tuple[Core, ...]:
    return tuple(c for mood, texts in templates.items() for c in make_cores(SKILL, mood, texts))


def _values(subject: Subject) -> tuple[str, ...]:
    return NAMES if subject == "name" else COLOURS


def _family(subject: Subject, templates: tuple[str, dict[Mood, tuple[str, ...]]]) -> Family:
    reply, texts = templates
    facts = tuple(Fact(reply.format(x=value), {"x": value}) for value in _values(subject))
    return Family(SKILL, _cores(texts), facts)


_TELL = {subject: _family(subject, _TOLD[subject]) for subject in SUBJECTS}
_CORRECT = {subject: _family(subject, _CORRECTED[subject]) for subject in SUBJECTS}
_ASK = {subject: _cores(_ASKED[subject]) for subject in SUBJECTS}
_SPOKEN = {"name": "name", "colour": "favourite colour"}


def tell(rng: Random, split: Split, subject: Subject, known: Remembered) -> tuple[Turn, Remembered]:
    """Tell a fact; when one is known already, correct it to another value."""
    # A worked example: "my name is anna" is told, and "nice to meet you anna" the reply. Told
    # again, it is a correction, to another name: "actually my name is eva", with "okay i will call
    # you eva". Whoever asks then hears the last one.
    before = known.name if subject == "name" else known.colour
    family = _TELL[subject] if before is None else _CORRECT[subject]
    fact = rng.choice([f for f in family.facts if f.slots["x"] != before])
    wording = choose_wording(rng, split, family.cores)
    turn = Turn(wording.format(**fact.slots), fact.reply, SKILL)
    if subject == "name":
        return turn, replace(known, name=fact.slots["x"])
    return turn, replace(known, colour=fact.slots["x"])


def ask(rng: Random, split: Split, subject: Subject, known: Remembered) -> Turn:
    """Ask for a fact; the reply depends on what has been told before."""
    value = known.name if subject == "name" else known.colour
    if value is None:
        reply = f"you have not told me your {_SPOKEN[subject]} yet"
    else:
        reply = f"your {_SPOKEN[subject]} is {value}"
    return Turn(choose_wording(rng, split, _ASK[subject]), reply, SKILL)


def replies() -> Iterator[str]:
    """Yield every reply of the skill."""
    for subject in SUBJECTS:
        for family in (_TELL[subject], _CORRECT[subject]):
            yield from (fact.reply for fact in family.facts)
        yield f"you have not told me your {_SPOKEN[subject]} yet"
        yield from (f"your {_SPOKEN[subject]} is {value}" for value in _values(subject))


def texts() -> Iterator[str]:
    """Yield texts that together hold every word of the skill."""
    yield from replies()
    for subject in SUBJECTS:
        yield from _TELL[subject].texts()
        yield from _CORRECT[subject].texts()
        for core in _ASK[subject]:
            yield from (core.text, *core.train, *core.held_out)


def num_cores() -> int:
    """Count the core templates of the skill."""
    families = (*_TELL.values(), *_CORRECT.values())
    return sum(len(f.cores) for f in families) + sum(len(cores) for cores in _ASK.values())
