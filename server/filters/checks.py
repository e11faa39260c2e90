"""Judge words: lists of words, patterns, and personal data; pure, in time linear in the text."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import phonenumbers
import re2

from server.errors import ConfigError

# Every check answers with a `Finding`. A worked example, for personal data that is masked:
#
#     "call 0171 2345678 now"
#     digits      one run, "0171 2345678", characters 5 to 17
#     card        no: it has 11 digits, a card 13 to 19
#     phone       yes, a valid number in Germany: Finding(masks=((5, 17),))
#
# Spoken numbers come as words. "oh one seven" is read as 0 1 7, at the places of the words.


@dataclass(frozen=True, slots=True)
class Finding:
    """Say what a check found.

    Attributes:
        is_refused: whether the words must not pass.
        masks: (start, end) of characters that must not.
    """

    is_refused: bool = False
    masks: tuple[tuple[int, int], ...] = ()


NOTHING = Finding()


class Check(Protocol):
    """Judge words."""

    async def judge(self, text: str) -> Finding:
        """Return what is found in a text.

        Raises:
            CheckError: it cannot be judged.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class WordList:
    """Refuse text with one of some words or phrases in it, as whole words, in upper or lower case.

    Args:
        words: to be refused.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self._phrases = {phrase for word in words if (phrase := _plain(word)).strip()}
        self._singles = {phrase.strip() for phrase in self._phrases if " " not in phrase.strip()}
        self._phrases -= {f" {word} " for word in self._singles}

    async def judge(self, text: str) -> Finding:
        """Return what is found in a text."""
        plain = _plain(text)
        has_word = not self._singles.isdisjoint(plain.split())
        return Finding(is_refused=has_word or any(phrase in plain for phrase in self._phrases))

    async def close(self) -> None:
        """Do nothing: it holds no connection."""


class PatternList:
    """Refuse text in which a pattern is found; RE2 matches in linear time.

    Args:
        patterns: in RE2's syntax: no look-around, no back references.

    Raises:
        ConfigError: one is not a pattern.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = []
        options = re2.Options()
        options.log_errors = False
        options.case_sensitive = False
        for pattern in patterns:
            try:
                self._patterns.append(re2.compile(pattern, options))
            except re2.error as error:
                raise ConfigError(f"filters.checks: {pattern!r} is no pattern: {error}") from None

    async def judge(self, text: str) -> Finding:
        """Return what is found in a text."""
        return Finding(is_refused=any(pattern.search(text) for pattern in self._patterns))

    async def close(self) -> None:
        """Do nothing: it holds no connection."""


class PersonalData:
    """Find phone numbers, e-mail addresses and card numbers.

    Args:
        kinds: of "phone", "email" and "card".
        region: where numbers without a country are called, such as "US".
        is_masked: whether they are masked; else text that contains one is refused.
    """

    def __init__(self, kinds: Iterable[str], region: str, *, is_masked: bool) -> None:
        self._kinds = frozenset(kinds)
        self._region = region
        self._is_masked = is_masked

    async def judge(self, text: str) -> Finding:
        """Return what is found in a text."""
        found = [*self._numbers(text)]
        if "email" in self._kinds:
            found += _emails(text)
        if not self._is_masked:
            return Finding(is_refused=bool(found))
        return Finding(masks=tuple(sorted(found)))

    async def close(self) -> None:
        """Do nothing: it holds no connection."""

    def _numbers(self, text: str) -> Iterable[tuple[int, int]]:
        for digits, start, end in _digit_runs(text):
            plain = digits.lstrip("+")
            is_card = "card" in self._kinds and 13 <= len(plain) <= 19 and passes_luhn(plain)
            if is_card or ("phone" in self._kinds and self._is_phone(digits)):
                yield start, end

    def _is_phone(self, digits: str) -> bool:
        if len(digits) < _MIN_PHONE_DIGITS:
            return False
        try:
            number = phonenumbers.parse(digits, self._region)
        except phonenumbers.NumberParseException:
            return False
        return phonenumbers.is_valid_number(number)


def passes_luhn(digits: str) -> bool:
    """Say whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    total = 0
    for index, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if index % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


_SPOKEN = {
    "zero": "0",
    "oh": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
}
_TOKEN = re.compile(r"[0-9]+|[^\W\d_]+|[^\w\s]")
_PLUS = ("+", "plus")
_BETWEEN = frozenset("-.,()/")  # within a number; white space is skipped already
_MIN_PHONE_DIGITS = 4  # of the shortest numbers that there are, as in Austria and on Niue
_MAX_DIGITS = 64
_MAX_GAP = 3  # characters that may stand between two digits


def _digit_runs(text: str) -> list[tuple[str, int, int]]:
    """Return (digits, start, end) of every run of digits, written or spoken."""
    runs: list[tuple[str, int, int]] = []
    digits, start, end = "", 0, 0
    for token in _TOKEN.finditer(text):
        word = token.group().casefold()
        more = word if word[0].isascii() and word.isdigit() else _SPOKEN.get(word, "")
        if word in _PLUS or (digits and token.start() - end > _MAX_GAP):
            if digits:
                runs.append((digits, start, end))
            digits, start, end = "", token.start(), token.end()
        if word in _PLUS:
            digits = "+"
        elif more:
            start = token.start() if not digits else start
            # A longer run is no phone or card number, and keeping it would take quadratic time.
            digits, end = (digits + more)[:_MAX_DIGITS], token.end()
        elif word not in _BETWEEN and digits:
            runs.append((digits, start, end))
            digits = ""
    return [*runs, (digits, start, end)] if digits else runs


_LOCAL = re.compile(r"[\w.%+-]")
_DOMAIN = re.compile(r"[A-Za-z0-9.-]*")


def _emails(text: str) -> list[tuple[int, int]]:
    """Return (start, end) of every e-mail address: found from its "@", to both sides."""
    found: list[tuple[int, int]] = []
    at = text.find("@")
    while at != -1:
        start = at
        while start and at - start < 64 and _LOCAL.match(text, start - 1):
            start -= 1
        found_domain = _DOMAIN.match(text, at + 1)
        assert found_domain is not None, "it matches nothing as well"
        domain = found_domain.group().rstrip(".-")
        if start < at and "." in domain.strip("."):
            found.append((start, at + 1 + len(domain)))
        at = text.find("@", at + 1)
    return found


_WORDS = re.compile(r"\w+")


def _plain(text: str) -> str:
    """Return the words of a text, in one case and one form, with a space around each."""
    words = _WORDS.findall(unicodedata.normalize("NFKC", text).casefold())
    return f" {' '.join(words)} "
