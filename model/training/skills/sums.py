"""Sums: plus and minus within 0 to 20, times up to twelve twelves."""

from __future__ import annotations

from model.training.skills.numbers import number_words
from model.training.skills.phrasing import Fact, Family, Mood, make_cores

SKILL = "sums"
LARGEST_SUM = 20
LARGEST_FACTOR = 12

# {a} and {b} stand in the order in which the reply says them.
_PLUS: dict[Mood, tuple[str, ...]] = {
    "question": (
        "what is {a} plus {b}",
        "what's {a} plus {b}",
        "what is {a} and {b}",
        "how much is {a} plus {b}",
        "how much is {a} and {b}",
        "what does {a} plus {b} make",
        "what does {a} plus {b} equal",
        "what do {a} and {b} make",
        "what is the sum of {a} and {b}",
        "what is {a} added to {b}",
        "how many is {a} plus {b}",
        "what do you get if you add {a} and {b}",
    ),
    "command": (
        "add {a} and {b}",
        "add {a} to {b}",
        "add up {a} and {b}",
        "work out {a} plus {b}",
        "calculate {a} plus {b}",
        "give me the sum of {a} and {b}",
    ),
    "fragment": ("{a} plus {b}", "{a} plus {b} is", "{a} plus {b} equals"),
    "statement": ("if i have {a} and get {b} more how many is that",),
}
_MINUS: dict[Mood, tuple[str, ...]] = {
    "question": (
        "what is {a} minus {b}",
        "what's {a} minus {b}",
        "what is {a} take away {b}",
        "how much is {a} minus {b}",
        "how much is {a} take away {b}",
        "what does {a} minus {b} make",
        "what does {a} minus {b} equal",
        "what is {a} less {b}",
        "what is the difference between {a} and {b}",
        "how many is {a} minus {b}",
        "what is left if you take {b} from {a}",
        "what do you get if you subtract {b} from {a}",
    ),
    "command": (
        "subtract {b} from {a}",
        "take {b} away from {a}",
        "take {b} from {a}",
        "work out {a} minus {b}",
        "calculate {a} minus {b}",
    ),
    "fragment": ("{a} minus {b}", "{a} take away {b}", "{a} minus {b} is", "{a} minus {b} equals"),
    "statement": ("if i have {a} and give away {b} how many are left",),
}
_TIMES: dict[Mood, tuple[str, ...]] = {
    "question": (
        "what is {a} times {b}",
        "what's {a} times {b}",
        "what is {a} multiplied by {b}",
        "how much is {a} times {b}",
        "how much is {a} multiplied by {b}",
        "what does {a} times {b} make",
        "what does {a} times {b} equal",
        "what is the product of {a} and {b}",
        "how many is {a} times {b}",
        "what do you get if you multiply {a} by {b}",
    ),
    "command": (
        "multiply {a} by {b}",
        "multiply {a} and {b}",
        "multiply {a} with {b}",
        "work out {a} times {b}",
        "calculate {a} times {b}",
    ),
    "fragment": (
        "{a} times {b}",
        "{a} multiplied by {b}",
        "{a} times {b} is",
        "{a} times {b} equals",
    ),
}


def _fact(a: int, sign: str, b: int, result: int) -> Fact:
    left, right = number_words(a), number_words(b)
    answer = number_words(result)
    return Fact(f"{left} {sign} {right} is {answer}", {"a": left, "b": right}, answer)


def _family(templates: dict[Mood, tuple[str, ...]], facts: tuple[Fact, ...]) -> Family:
    cores = tuple(c for mood, texts in templates.items() for c in make_cores(SKILL, mood, texts))
    return Family(SKILL, cores, facts)


# A worked example of how many facts there are: pairs up to 20 whose sum is at most 20 are 231, as
# are those with a difference; 13 * 13 = 169 products. All of them train; only wordings are held
# out.
_IN_SUM = range(LARGEST_SUM + 1)
_FACTORS = range(LARGEST_FACTOR + 1)

FAMILIES = (
    _family(
        _PLUS,
        tuple(_fact(a, "plus", b, a + b) for a in _IN_SUM for b in _IN_SUM if a + b <= LARGEST_SUM),
    ),
    _family(_MINUS, tuple(_fact(a, "minus", b, a - b) for a in _IN_SUM for b in _IN_SUM if b <= a)),
    _family(_TIMES, tuple(_fact(a, "times", b, a * b) for a in _FACTORS for b in _FACTORS)),
)
