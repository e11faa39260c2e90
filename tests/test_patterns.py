"""Every regular expression that callers' texts may meet takes time in proportion to the text.

All are found in the source; each is then matched, by a plain backtracking matcher that counts its
steps, against texts that are made of it: what it repeats, over and over, with and without what it
wants before and after. Twice the text may take a little over twice the steps.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from re import _constants as ops  # type: ignore[attr-defined]  # what patterns are parsed into
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
_CALLS = {"compile", "match", "fullmatch", "search", "sub", "subn", "split", "findall", "finditer"}
# Patterns of files that whoever runs the server writes: those that we ship are looked at as well.
# And of training, where no caller is.
_NOT_CALLERS = {"model/scripted/script.py"}
_SHORT, _LONG, _MOST_GROWTH = 24, 48, 2.6


def _patterns() -> Iterator[tuple[str, str | None]]:
    """Yield (place, pattern) of every use of `re`; None for one that is no literal."""
    for path in sorted([*ROOT.glob("server/**/*.py"), *ROOT.glob("model/**/*.py")]):
        place = str(path.relative_to(ROOT))
        if place.startswith("model/training/") or place in _NOT_CALLERS:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            is_re = isinstance(node.func.value, ast.Name) and node.func.value.id == "re"
            if is_re and node.func.attr in _CALLS:
                given = node.args[0]
                is_literal = isinstance(given, ast.Constant) and isinstance(given.value, str)
                yield f"{place}:{node.lineno}", given.value if is_literal else None  # type: ignore[attr-defined]  # it is one


def _script_patterns() -> Iterator[tuple[str, str]]:
    """Yield those of scripts for the scripted engine."""
    for path in sorted(ROOT.glob("configs/scripts/*.yaml")):
        script = yaml.safe_load(path.read_text(encoding="utf-8"))
        for index, reply in enumerate(script["reply"]):
            for name, given in reply.get("when", {}).items():
                if name in ("user", "output", "history", "instructions"):
                    yield f"{path.name}:reply[{index}].{name}", given


class _Steps:
    """Match as `re` does, by backtracking, and count."""

    def __init__(self, pattern: str) -> None:
        self.num = 0
        self._tree = [*parser.parse(pattern)]

    def search_all(self, text: str) -> int:
        """Return the steps of finding all matches in a text."""
        self.num, at = 0, 0
        while at <= len(text):
            end = self._match(self._tree, text, at, lambda end: end)
            at = end if end is not None and end > at else at + 1
        return self.num

    def _match(  # noqa: PLR0911 - a case each
        self, tree: list[Any], text: str, at: int, then: Callable[[int], int | None]
    ) -> int | None:
        self.num += 1
        if not tree:
            return then(at)
        (op, given), rest = tree[0], tree[1:]

        def go_on(end: int) -> int | None:
            return self._match(rest, text, end, then)

        if op is ops.POSSESSIVE_REPEAT:  # it takes all, and gives nothing back
            low, high, inner = given
            taken = self._repeat([*inner], text, at, low, high, lambda end: end, is_greedy=True)
            return None if taken is None else go_on(taken)
        if op in (ops.MAX_REPEAT, ops.MIN_REPEAT):
            low, high, inner = given
            return self._repeat(
                [*inner], text, at, low, high, go_on, is_greedy=op is ops.MAX_REPEAT
            )
        if op is ops.SUBPATTERN:
            return self._match([*given[-1]], text, at, go_on)
        if op is ops.BRANCH:
            for branch in given[1]:
                if (end := self._match([*branch], text, at, go_on)) is not None:
                    return end
            return None
        if op in (ops.ASSERT, ops.ASSERT_NOT):
            direction, inner = given
            start = at if direction > 0 else at - inner.getwidth()[0]
            found = start >= 0 and self._match([*inner], text, start, lambda end: end) is not None
            return go_on(at) if found is (op is ops.ASSERT) else None
        if op is ops.AT and given is ops.AT_BEGINNING:
            return go_on(at) if at == 0 else None
        if op is ops.AT:
            return go_on(at)  # as if it were there: more is tried, not less
        return go_on(at + 1) if at < len(text) and _is_one(op, given, text[at]) else None

    def _repeat(
        self,
        inner: list[Any],
        text: str,
        at: int,
        low: int,
        high: int,
        go_on: Callable[[int], int | None],
        *,
        is_greedy: bool,
    ) -> int | None:
        """Match a repeat: of one character, or of a group, once more first and then the rest."""
        if inner[0][0] in (ops.SUBPATTERN, ops.BRANCH) or len(inner) > 1:
            return self._repeat_group(inner, text, at, low, high, go_on)
        ends = [at]
        while len(ends) <= high and ends[-1] < len(text):
            self.num += 1
            if not _is_one(inner[0][0], inner[0][1], text[ends[-1]]):
                break
            ends.append(ends[-1] + 1)
        for end in reversed(ends[low:]) if is_greedy else ends[low:]:
            if (found := go_on(end)) is not None:
                return found
        return None

    def _repeat_group(
        self,
        inner: list[Any],
        text: str,
        at: int,
        low: int,
        high: int,
        go_on: Callable[[int], int | None],
    ) -> int | None:
        """Match a repeat of more than a character."""

        def again(end: int) -> int | None:
            if end == at:
                return None  # a round that takes nothing leads nowhere
            return self._repeat_group(inner, text, end, max(low - 1, 0), high - 1, go_on)

        if high > 0 and (found := self._match(inner, text, at, again)) is not None:
            return found
        return go_on(at) if low == 0 else None


def _is_one(op: Any, given: Any, char: str) -> bool:
    """Tell whether a character is one of those that one item of a pattern takes."""
    match op:
        case ops.LITERAL:
            return char == chr(given)
        case ops.NOT_LITERAL:
            return char != chr(given)
        case ops.ANY:
            return char != "\n"
        case ops.IN:
            is_negated = any(kind is ops.NEGATE for kind, _ in given)
            among = [(kind, of) for kind, of in given if kind is not ops.NEGATE]
            return any(_is_in(kind, of, char) for kind, of in among) is not is_negated
        case _:
            raise AssertionError(f"the matcher does not know {op}: teach it")


def _is_in(op: Any, given: Any, char: str) -> bool:
    match op:
        case ops.LITERAL:
            return char == chr(given)
        case ops.RANGE:
            return given[0] <= ord(char) <= given[1]
        case ops.CATEGORY:
            return {
                ops.CATEGORY_DIGIT: char.isdigit(),
                ops.CATEGORY_NOT_DIGIT: not char.isdigit(),
                ops.CATEGORY_SPACE: char.isspace(),
                ops.CATEGORY_NOT_SPACE: not char.isspace(),
                ops.CATEGORY_WORD: char.isalnum() or char == "_",
                ops.CATEGORY_NOT_WORD: not (char.isalnum() or char == "_"),
            }[given]
        case _:
            raise AssertionError(f"the matcher does not know {op}: teach it")


def _growth(pattern: str) -> float:
    """Return how much more steps twice the text takes, at worst."""
    steps = _Steps(pattern)
    chars = sorted({*"1 a,.-x<_", *(c for c in pattern if c.isprintable())})[:16]
    repeated = [*chars, *map("".join, product("1 a,.x-", repeat=2))]
    worst = 0.0
    for unit, before, after in product(repeated, ("", "1", "<"), ("", "!", "1")):
        short, long = (
            steps.search_all(before + unit * (size // len(unit)) + after)
            for size in (_SHORT, _LONG)
        )
        worst = max(worst, long / short)
    return worst


_FOUND = [*_patterns(), *_script_patterns()]


def test_every_pattern_is_known() -> None:
    """They are literals, so that they can be looked at, and there are some."""
    assert _FOUND
    assert [place for place, pattern in _FOUND if pattern is None] == []


@pytest.mark.parametrize(("place", "pattern"), _FOUND, ids=[place for place, _ in _FOUND])
def test_a_pattern_is_linear(place: str, pattern: str) -> None:
    """However a text is made, twice as much of it is twice the work."""
    assert _growth(pattern) < _MOST_GROWTH, f"{place}: {pattern!r}"


@pytest.mark.parametrize(
    "pattern", [r"(\d+)\.(\d+)", r"\s*x", r"\d*\d*a", r"a+ *-", r".*user", r"^\d+.*; \d"]
)
def test_what_is_not_linear_is_found(pattern: str) -> None:
    """The first has silenced everybody for a minute with 150,000 digits."""
    assert _growth(pattern) > 2.9
