"""Everything else: questions that the starter cannot answer, and says so."""

from __future__ import annotations

from model.training.skills.capitals import CAPITALS
from model.training.skills.numbers import number_words
from model.training.skills.phrasing import Fact, Family, Mood, make_cores
from model.training.skills.repeat import NOUNS

SKILL = "unknown"
REPLY = "sorry i do not know that"

_LOOSE: dict[Mood, tuple[str, ...]] = {
    "question": (
        "what is the weather tomorrow",
        "what is the weather like today",
        "will it rain tomorrow",
        "is it cold outside",
        "what time is it",
        "what day is it today",
        "what is the date today",
        "who won the game last night",
        "who is the president",
        "what is the meaning of life",
        "what is for dinner tonight",
        "what should i cook today",
        "what should i wear today",
        "where is the nearest station",
        "when does the next train leave",
        "how far is the moon",
        "how deep is the ocean",
        "why is the sky blue",
        "what is the news today",
        "who wrote this book",
        "what is the price of gold",
        "how tall is the tallest man",
        "how many stars are there",
    ),
    "command": (
        "play some music",
        "turn on the light",
        "turn off the radio",
        "set an alarm",
        "call my mother",
        "open the door",
        "order a pizza",
        "read me the news",
        "send a message to my brother",
        "book a table for two",
    ),
}
_ABOUT_NOUN: dict[Mood, tuple[str, ...]] = {
    "question": (
        "who invented the {x}",
        "where is my {x}",
        "how much does the {x} cost",
        "what colour is the {x}",
        "how old is the {x}",
        "where can i buy the {x}",
        "what is the opposite of {x}",
        "how many people have the {x}",
    ),
    "command": ("tell me about the {x}", "find my {x}", "buy me the {x}"),
}
_ABOUT_COUNTRY: dict[Mood, tuple[str, ...]] = {
    "question": (
        "who is the president of {x}",
        "how many people live in {x}",
        "how far is it to {x}",
        "what language do they speak in {x}",
        "what is the weather like in {x}",
        "how big is {x}",
    ),
    "command": ("tell me about {x}", "book a flight to {x}"),
}
_BIG_SUM: dict[Mood, tuple[str, ...]] = {
    "question": (
        "what is {x} plus {y}",
        "what is {x} minus {y}",
        "what is {x} times {y}",
        "how much is {x} plus {y}",
        "what is {x} divided by {y}",
    ),
}
# Both numbers are beyond every sum that can be answered, so the border is never in doubt.
_BIG = tuple(range(25, 100, 5))


def _family(
    templates: dict[Mood, tuple[str, ...]], slots: list[dict[str, str]], weight: float
) -> Family:
    cores = tuple(c for mood, texts in templates.items() for c in make_cores(SKILL, mood, texts))
    return Family(SKILL, cores, tuple(Fact(REPLY, slot) for slot in slots), weight)


FAMILIES = (
    _family(_LOOSE, [{}], 3.0),
    _family(_ABOUT_NOUN, [{"x": noun} for noun in NOUNS], 3.0),
    _family(_ABOUT_COUNTRY, [{"x": country} for country in CAPITALS], 2.0),
    _family(
        _BIG_SUM,
        [{"x": number_words(a), "y": number_words(b)} for a in _BIG for b in _BIG],
        1.5,
    ),
)
