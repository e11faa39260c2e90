"""What comes before and after: numbers to ninety nine, days of the week, months."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from model.training.skills.numbers import number_words
from model.training.skills.phrasing import Fact, Family, Mood, make_cores

SKILL = "sequence"
LARGEST_NUMBER = 99
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MONTHS = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)

_AFTER: dict[Mood, tuple[str, ...]] = {
    "question": (
        "what comes after {x}",
        "what {kind} comes after {x}",
        "which {kind} comes after {x}",
        "what comes right after {x}",
        "what comes next after {x}",
        "what is the next {kind} after {x}",
        "what is the {kind} after {x}",
        "which {kind} is after {x}",
        "which {kind} follows {x}",
        "what follows {x}",
        "what's after {x}",
        "what is after {x}",
    ),
    "command": (
        "tell me the {kind} after {x}",
        "tell me what comes after {x}",
        "say the {kind} after {x}",
        "name the {kind} that comes after {x}",
        "give me the next {kind} after {x}",
    ),
    "fragment": ("after {x} comes", "the {kind} after {x}", "after {x} comes what"),
}
_BEFORE: dict[Mood, tuple[str, ...]] = {
    "question": (
        "what comes before {x}",
        "what {kind} comes before {x}",
        "which {kind} comes before {x}",
        "what comes right before {x}",
        "what comes just before {x}",
        "what is the last {kind} before {x}",
        "what is the {kind} before {x}",
        "which {kind} is before {x}",
        "which {kind} goes before {x}",
        "what goes before {x}",
        "what's before {x}",
        "what is before {x}",
    ),
    "command": (
        "tell me the {kind} before {x}",
        "tell me what comes before {x}",
        "say the {kind} before {x}",
        "name the {kind} that comes before {x}",
        "give me the {kind} before {x}",
    ),
    "fragment": ("before {x} comes", "the {kind} before {x}", "before {x} comes what"),
}
_TOMORROW: dict[Mood, tuple[str, ...]] = {
    "statement": ("if today is {x} what day is tomorrow", "today is {x} what day is tomorrow"),
}
_YESTERDAY: dict[Mood, tuple[str, ...]] = {
    "statement": ("if today is {x} what day was yesterday", "today is {x} what was yesterday"),
}


def _family(
    templates: Mapping[Mood, tuple[str, ...]],
    kind: str,
    relation: str,
    pairs: Iterable[tuple[str, str]],
    weight: float,
) -> Family:
    cores = tuple(c for mood, texts in templates.items() for c in make_cores(SKILL, mood, texts))
    facts = tuple(
        Fact(f"{relation} {given} comes {answer}", {"x": given, "kind": kind}, answer)
        for given, answer in pairs
    )
    return Family(SKILL, cores, facts, weight)


def _ring(names: tuple[str, ...], step: int) -> list[tuple[str, str]]:
    # After sunday comes monday, and before january december: the index goes around.
    return [(name, names[(i + step) % len(names)]) for i, name in enumerate(names)]


def _numbers(first: int, last: int, step: int) -> list[tuple[str, str]]:
    return [(number_words(n), number_words(n + step)) for n in range(first, last + 1)]


# Numbers weigh three times as much as months: there are a hundred of them, and twelve months.
FAMILIES = (
    _family(_AFTER, "number", "after", _numbers(0, LARGEST_NUMBER, 1), 3.0),
    _family(_BEFORE, "number", "before", _numbers(1, LARGEST_NUMBER, -1), 3.0),
    _family(_AFTER, "day", "after", _ring(DAYS, 1), 0.8),
    _family(_BEFORE, "day", "before", _ring(DAYS, -1), 0.8),
    _family(_TOMORROW, "day", "after", _ring(DAYS, 1), 0.2),
    _family(_YESTERDAY, "day", "before", _ring(DAYS, -1), 0.2),
    _family(_AFTER, "month", "after", _ring(MONTHS, 1), 1.0),
    _family(_BEFORE, "month", "before", _ring(MONTHS, -1), 1.0),
)
