"""Simple instructions: a name, one word, a greeting, one subject; and sentences that say nothing.

A conversation is led by none, one or two of them, in any order, among words that change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from random import Random

from model.training.skills import small_talk
from model.training.skills.memory import NAMES
from model.training.skills.phrasing import (
    Conversation,
    Core,
    Split,
    Turn,
    choose_wording,
    is_held_out,
    make_cores,
    word_list,
)
from model.training.skills.repeat import ADJECTIVES, NOUNS

SKILL = "instructions"

_NAME = (
    "your name is {x}",
    "you are {x}",
    "you are called {x}",
    "you are a helpful assistant called {x}",
    "you are an assistant named {x}",
    "call yourself {x}",
    "your name is {x} not parley",
)
_ONE_WORD = (
    "answer in one word",
    "always answer in one word",
    "answer with one word",
    "answer with a single word",
    "use only one word",
    "keep your answers to one word",
    "give answers of one word only",
    "reply with one word",
)
_GREET = (
    "greet the caller with {x}",
    "greet the user with {x}",
    "begin with {x}",
    "start the call with {x}",
    "say hello with {x}",
    "when the call starts say {x}",
)
_ONLY = (
    "you may only talk about {x}",
    "only talk about {x}",
    "talk about {x} only",
    "you can only talk about {x}",
    "you must only talk about {x}",
    "do not talk about anything but {x}",
)
_EMPTY = (
    "you are a helpful assistant",
    "you are a friendly voice assistant",
    "be polite",
    "be kind and friendly",
    "please be brief",
    "speak clearly",
    "you talk to people on the phone",
    "help the user",
    "answer the questions of the user",
    "be nice to everybody",
    "never be rude",
    "use the tools when you need them",
)
SUBJECTS: Mapping[str, str] = {
    "sums": "sums",
    "capitals": "capitals",
    "counting": "counting",
    "opposites": "opposites",
}
_OTHER_NAMES = word_list(
    "bella max nova luna robin sunny ruby oscar parker echo milo daisy rose jasper amber ivy"
)
_GREETINGS = (
    "good morning welcome to the {noun}",
    "hello and welcome to the {adjective} {noun}",
    "hello this is {name} speaking",
    "good day this is the {noun} office",
    "hi {name} here",
    "welcome to the {adjective} {noun}",
    "hello how can i help you",
    "good evening this is {name} from the {noun}",
)
# Skills that no name and no greeting changes; those whose replies have a short form.
_UNLED = ("sums", "capitals", "sequence", "opposites", "counting", "unknown", "repeat")
_SHORT = ("sums", "capitals", "sequence", "opposites")
_HELLO = make_cores(SKILL, "social", ("hello", "hi", "hello there", "good day"))
_WHO: tuple[Core, ...] = next(
    family.cores
    for family in small_talk.FAMILIES
    if family.facts[0].reply == "i am parley a small voice model"
)


@dataclass(frozen=True, slots=True)
class Rules:
    """What a conversation is led by: None where nothing is said about it."""

    name: str | None = None
    is_one_word: bool = False
    greeting: str | None = None
    subject: str | None = None

    # A worked example with the rules "only talk about sums" and "answer in one word": "what is two
    # plus two" is "four", and "what is the capital of france" is "i may only talk about sums", all
    # of its words, since that reply has no short form.
    def reply(self, turn: Turn) -> str:
        """Return the right reply to a turn under these rules."""
        if self.subject is not None and turn.skill not in (SUBJECTS[self.subject], SKILL):
            return f"i may only talk about {self.subject}"
        return turn.short if self.is_one_word and turn.short else turn.reply


def draw_rules(rng: Random, split: Split) -> Rules:
    """Draw none, one or two rules."""
    kinds = rng.sample(("name", "one word", "greeting", "subject"), rng.choice((0, 1, 1, 1, 2)))
    return Rules(
        name=rng.choice((*NAMES, *_OTHER_NAMES)) if "name" in kinds else None,
        is_one_word="one word" in kinds,
        greeting=_greeting(rng, split) if "greeting" in kinds else None,
        subject=rng.choice(tuple(SUBJECTS)) if "subject" in kinds else None,
    )


def _greeting(rng: Random, split: Split) -> str:
    # Drawn again until it is in the right split: greetings of eval are never in training, whole as
    # they are.
    while True:
        text = rng.choice(_GREETINGS).format(
            noun=rng.choice(NOUNS),
            adjective=rng.choice(ADJECTIVES),
            name=rng.choice((*NAMES, *_OTHER_NAMES)),
        )
        if is_held_out(SKILL, text) == (split == "eval"):
            return text


def written(rng: Random, rules: Rules) -> str:
    """Write rules as instructions, among words that change nothing."""
    sentences = rng.sample(_EMPTY, rng.choice((0, 0, 1, 2)))
    if rules.name is not None:
        sentences.append(rng.choice(_NAME).format(x=rules.name))
    if rules.is_one_word:
        sentences.append(rng.choice(_ONE_WORD))
    if rules.subject is not None:
        sentences.append(rng.choice(_ONLY).format(x=rules.subject))
    rng.shuffle(sentences)
    if rules.greeting is not None:  # last: where a greeting ends is then never in doubt
        sentences.append(rng.choice(_GREET).format(x=rules.greeting))
    return " ".join(sentences or [rng.choice(_EMPTY)])


def sample(
    rng: Random, split: Split, draw_turn: Callable[[Random, Split, str], Turn]
) -> Conversation:
    """Draw a conversation that is led by instructions.

    Args:
        rng: the only source of chance.
        split: which wordings may occur.
        draw_turn: draws a turn of a skill that does not look back.
    """
    rules = draw_rules(rng, split)
    turns: list[Turn] = []
    if rules.greeting is not None:
        opening = "" if rng.random() < 0.6 else choose_wording(rng, split, _HELLO)
        turns.append(Turn(opening, rules.greeting, SKILL))
    if rules.name is not None and (rng.random() < 0.8 or not turns):
        user = choose_wording(rng, split, _WHO)
        turns.append(Turn(user, f"i am {rules.name}", SKILL, rules.name))
    for _ in range(rng.choice((0, 1, 1, 2)) if turns else rng.choice((1, 1, 2))):
        # Small talk would contradict rules: "what is your name" has another answer where a name was
        # given. So it comes only where no rule could change it.
        is_free = rules.name is None and rules.greeting is None and rules.subject is None
        skill = rng.choice((*_UNLED, "small_talk", "small_talk") if is_free else _UNLED)
        if rules.subject is not None and rng.random() < 0.5:
            skill = SUBJECTS[rules.subject]
        elif rules.is_one_word and rng.random() < 0.7:
            skill = rng.choice(_SHORT)
        turns.append(draw_turn(rng, split, skill))
    led = tuple(_led(turn, rules) for turn in turns)
    return Conversation(led, written(rng, rules))


def _led(turn: Turn, rules: Rules) -> Turn:
    reply = rules.reply(turn)
    # What a rule decides is this skill's; the others answer as ever.
    return replace(turn, reply=reply, skill=SKILL if reply != turn.reply else turn.skill)


def replies() -> Iterator[str]:
    """Yield every reply that does not come from the instructions' own words."""
    yield from (f"i am {name}" for name in (*NAMES, *_OTHER_NAMES))
    yield from (*NAMES, *_OTHER_NAMES)
    yield from (f"i may only talk about {subject}" for subject in SUBJECTS)


def texts() -> Iterator[str]:
    """Yield texts that together hold every word of the skill."""
    yield from replies()
    for text in (*_NAME, *_ONE_WORD, *_GREET, *_ONLY, *_EMPTY, *_GREETINGS):
        yield " ".join(word for word in text.split() if "{" not in word)
    for core in (*_HELLO, *_WHO):
        yield from (core.text, *core.train, *core.held_out)
