"""Counting aloud, up and down, at most ten numbers at a time."""

from __future__ import annotations

from collections.abc import Iterator

from model.training.skills.numbers import number_words
from model.training.skills.phrasing import Fact, Family, Mood, make_cores

SKILL = "counting"
LARGEST = 20
MOST_ITEMS = 10

_UP_FROM: dict[Mood, tuple[str, ...]] = {
    "command": (
        "count from {a} to {b}",
        "count up from {a} to {b}",
        "count the numbers from {a} to {b}",
        "say the numbers from {a} to {b}",
        "tell me the numbers from {a} to {b}",
        "give me the numbers from {a} to {b}",
        "start at {a} and count to {b}",
    ),
    "question": ("what are the numbers from {a} to {b}",),
    "fragment": ("the numbers from {a} to {b}", "counting from {a} to {b}"),
}
_UP_TO: dict[Mood, tuple[str, ...]] = {
    "command": (
        "count to {b}",
        "count up to {b}",
        "count all the way to {b}",
        "say the numbers up to {b}",
    ),
    "question": ("can you count to {b}", "could you count up to {b}"),
}
_DOWN_FROM: dict[Mood, tuple[str, ...]] = {
    "command": (
        "count down from {a}",
        "count backwards from {a}",
        "do a countdown from {a}",
        "start at {a} and count down",
    ),
    "question": ("can you count down from {a}", "can you count backwards from {a}"),
}
_DOWN_TO: dict[Mood, tuple[str, ...]] = {
    "command": (
        "count down from {a} to {b}",
        "count backwards from {a} to {b}",
        "start at {a} and count down to {b}",
        "count from {a} down to {b}",
        "count from {a} back to {b}",
    ),
}


def _fact(first: int, last: int) -> Fact:
    step = 1 if last > first else -1
    # From 7 to 4 the range ends at 4 + (-1) = 3, so that 4 is said as well.
    reply = " ".join(number_words(n) for n in range(first, last + step, step))
    return Fact(reply, {"a": number_words(first), "b": number_words(last)})


def _pairs() -> Iterator[tuple[int, int]]:
    for low in range(LARGEST + 1):
        # Two numbers are hardly counting, so there are at least three; and at most ten, which is as
        # long as a reply stays short.
        for high in range(low + 2, min(low + MOST_ITEMS - 1, LARGEST) + 1):
            yield low, high


def _family(
    templates: dict[Mood, tuple[str, ...]], facts: tuple[Fact, ...], weight: float
) -> Family:
    cores = tuple(c for mood, texts in templates.items() for c in make_cores(SKILL, mood, texts))
    return Family(SKILL, cores, facts, weight)


FAMILIES = (
    _family(_UP_FROM, tuple(_fact(low, high) for low, high in _pairs()), 3.0),
    _family(_UP_TO, tuple(_fact(1, n) for n in range(2, MOST_ITEMS + 1)), 1.0),
    _family(_DOWN_FROM, tuple(_fact(n, 1) for n in range(2, MOST_ITEMS + 1)), 1.0),
    _family(_DOWN_TO, tuple(_fact(high, low) for low, high in _pairs()), 2.0),
)
