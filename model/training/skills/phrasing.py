"""How a question is worded: opener, core and closer, and which wordings training never sees."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from model.messages import Tool

Split = Literal["train", "eval"]
Mood = Literal["question", "command", "statement", "fragment", "social", "repeat"]

HELD_OUT_ONE_IN = 8
BARE_SHARE = 0.4
"""Share of training utterances without opener and closer: what people say most."""


Style = Literal["plain", "slow", "loud"]


@dataclass(frozen=True, slots=True)
class Called:
    """A function call that a reply makes, and what comes back: arguments and result as texts."""

    name: str
    arguments: str
    result: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One exchange: what the user says, the only right reply, and the skill it exercises.

    Attributes:
        user: what the user says; empty where the assistant begins.
        reply: what is said at the end.
        short: the reply in one word, or as few as it takes; empty where it has no such form.
        calls: that are made before the reply, one after another.
        first: what is said before the first of them, because its result takes time.
        style: how the reply is spoken.
        spoilt: what makes that nobody could understand the user; empty for nothing. One of
            `model.training.speech.spoil.WAYS`, or "foreign" and a language.
        picture: what is shown with the question, as `model.training.pictures.Scene` reads it.
    """

    user: str
    reply: str
    skill: str
    short: str = ""
    calls: tuple[Called, ...] = ()
    first: str = ""
    style: Style = "plain"
    spoilt: str = ""
    picture: str = ""


Dialogue = tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Conversation:
    """A dialogue and what it is led by."""

    turns: Dialogue
    instructions: str = ""
    tools: tuple[Tool, ...] = ()


_OPENERS: Mapping[Mood, tuple[str, ...]] = {
    "question": (
        "",
        "hey",
        "hi",
        "hello",
        "okay",
        "so",
        "now",
        "well",
        "parley",
        "hey parley",
        "tell me",
        "please tell me",
        "can you tell me",
        "could you tell me",
        "do you know",
        "i want to know",
        "i would like to know",
        "excuse me",
        "quick question",
        "next question",
    ),
    "command": (
        "",
        "hey",
        "okay",
        "so",
        "now",
        "please",
        "now please",
        "parley",
        "hey parley",
        "can you",
        "could you",
        "would you",
        "can you please",
        "could you please",
        "hey can you",
        "okay now",
        "i want you to",
        "i would like you to",
    ),
    "statement": (
        "",
        "hey",
        "hi",
        "hello",
        "okay",
        "well",
        "so",
        "now",
        "listen",
        "by the way",
        "hey parley",
        "hello parley",
        "you know what",
        "let me tell you",
    ),
    "fragment": (
        "",
        "hey",
        "okay",
        "so",
        "now",
        "well",
        "parley",
        "hey parley",
        "quick question",
        "next question",
        "the next one",
        "how about",
        "what about",
        "let us try",
    ),
    "social": ("", "oh", "okay", "well", "so", "and", "hey parley"),
    "repeat": (
        "",
        "hey",
        "okay",
        "so",
        "now",
        "please",
        "now please",
        "parley",
        "hey parley",
        "can you",
        "could you",
        "would you",
        "can you please",
        "could you please",
        "i want you to",
    ),
}

_CLOSERS: Mapping[Mood, tuple[str, ...]] = {
    "question": ("", "please", "thanks", "thank you", "parley"),
    "command": ("", "please", "for me", "for me please", "thanks", "thank you"),
    "statement": ("", "okay", "parley", "you know", "just so you know"),
    "fragment": ("", "please", "thanks", "thank you"),
    "social": ("", "parley", "my friend", "okay"),
    "repeat": ("", "please", "for me"),
}


def word_list(text: str) -> tuple[str, ...]:
    """Split a list of words that is easiest to read and edit as running text."""
    return tuple(text.split())


def is_held_out(skill: str, text: str) -> bool:
    """Say whether a wording (or a string of words to repeat) belongs to the eval split."""
    # A worked example: "capitals|hey what is the capital of {country} please" has one hash, always.
    # If it is divisible by eight, the wording is heard in eval and never in training, in whatever
    # country. The skill's name is part of it, so that skills with a wording in common are split
    # apart.
    return zlib.crc32(f"{skill}|{text}".encode()) % HELD_OUT_ONE_IN == 0


def _clash(opener: str, closer: str) -> bool:
    """Nobody says the same courtesy, name or filler at both ends."""
    # "please tell me the time please" is said by nobody.
    return bool(set(opener.split()) & set(closer.split()) & {"please", "parley", "okay", "you"})


def _wordings(core: str, mood: Mood) -> Iterator[str]:
    for opener in _OPENERS[mood]:
        # 20 openers and 5 closers make 100 wordings of a question, less the clashes: "hey parley
        # what is two plus two thanks" is one. With twelve such cores and 231 facts, that is over
        # two hundred thousand questions about plus alone.
        for closer in _CLOSERS[mood]:
            if not _clash(opener, closer):
                yield " ".join(part for part in (opener, core, closer) if part)


@dataclass(frozen=True, slots=True)
class Core:
    """A core template with all its wordings, split by hash of the wording itself.

    The bare core, without opener and closer, always trains: it is what most people will say, and
    it makes sure that no core is absent from training.
    """

    text: str
    train: tuple[str, ...]
    held_out: tuple[str, ...]


def make_cores(skill: str, mood: Mood, texts: Sequence[str]) -> tuple[Core, ...]:
    """Build the cores of one mood for a skill."""
    cores = []
    for text in texts:
        wordings = [wording for wording in _wordings(text, mood) if wording != text]
        held_out = tuple(w for w in wordings if is_held_out(skill, w))
        train = tuple(w for w in wordings if not is_held_out(skill, w))
        cores.append(Core(text=text, train=train, held_out=held_out))
    return tuple(cores)


def choose_wording(rng: Random, split: Split, cores: Sequence[Core]) -> str:
    """Draw a template: a core uniformly, then one of its wordings in the split."""
    if split == "eval":
        # A core with few wordings may have none held out.
        return rng.choice(rng.choice([core for core in cores if core.held_out]).held_out)
    core = rng.choice(cores)
    # Drawn evenly, the plain question would be one in a hundred, and it is what most people say.
    if not core.train or rng.random() < BARE_SHARE:
        return core.text
    return rng.choice(core.train)


@dataclass(frozen=True, slots=True)
class Fact:
    """Words that fill a template, the right reply to it, and the reply as one word."""

    reply: str
    slots: Mapping[str, str] = field(default_factory=dict)
    short: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """Questions of one shape: any core can be asked about any fact."""

    skill: str
    cores: tuple[Core, ...]
    facts: tuple[Fact, ...]
    weight: float = 1.0

    def sample(self, rng: Random, split: Split) -> Turn:
        """Draw a fact and a wording independently."""
        fact = rng.choice(self.facts)
        wording = choose_wording(rng, split, self.cores)
        return Turn(wording.format(**fact.slots), fact.reply, self.skill, fact.short)

    def texts(self) -> Iterator[str]:
        """Yield texts that together hold every word of the family, and every reply."""
        for fact in self.facts:
            yield fact.reply
            yield from fact.slots.values()
        for core in self.cores:
            for wording in (core.text, *core.train, *core.held_out):
                yield " ".join(w for w in wording.split() if not w.startswith("{"))


def choose_family(rng: Random, families: Sequence[Family]) -> Family:
    """Draw a family by weight."""
    return rng.choices(families, [family.weight for family in families])[0]
