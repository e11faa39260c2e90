"""What is counted: shares with their confidence interval, and words heard wrongly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt

from model.training.speech.wer import word_errors as count_word_errors

_Z_95 = 1.959964  # the normal quantile that leaves 2.5 % on either side


@dataclass(frozen=True, slots=True)
class Share:
    """How often something held: `hits` of `total`."""

    hits: int
    total: int

    @property
    def value(self) -> float | None:
        """The share in 0..1; None when nothing was counted."""
        return self.hits / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float]:
        """Bounds of the 95 % confidence interval.

        Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
        """
        if not self.total:
            return 0.0, 1.0
        share, spread = self.hits / self.total, _Z_95**2 / self.total
        # A worked example: 95 of 100. The plain interval would be 0.95 ± 0.043; Wilson's is 0.888
        # to 0.978, which never leaves 0 to 1 and is right for shares near the ends. For 100 of 100
        # it is 0.963 to 1.
        centre = (share + spread / 2) / (1 + spread)
        half = _Z_95 * sqrt(share * (1 - share) / self.total + spread / self.total / 4)
        half /= 1 + spread
        return max(0.0, centre - half), min(1.0, centre + half)


def paired_interval(changes: Sequence[Sequence[int]]) -> tuple[float, float]:
    """Bounds of the 95 % confidence interval of how much a share changed between two runs.

    Turns of one conversation rise and fall together; where they do, they count as fewer turns (by
    the design effect, Kish 1965, "Survey sampling").
    Source of the interval: Bonett and Price 2012, "Adjusted Wald confidence interval for a
    difference of binomial proportions based on paired data".

    Args:
        changes: of each conversation, for each turn: 1 where only the second run hit, -1 where
            only the first did, 0 where both or neither.
    """
    each = [change for conversation in changes for change in conversation]
    if not each:
        return -1.0, 1.0
    mean = sum(each) / len(each)
    # A worked example of the design effect: two conversations of two turns, the changes (1, 1) and
    # (-1, -1). The mean is 0. Turn by turn the squares sum to 4; conversation by conversation they
    # are 2^2 + 2^2 = 8. The effect is 2: four turns say as much as two.
    alone = sum((change - mean) ** 2 for change in each)
    together = sum((sum(turns) - mean * len(turns)) ** 2 for turns in changes)
    effect = max(1.0, together / alone) if alone else 1.0
    # One turn more is counted for each side, so that no change in ten turns does not look like
    # certainty.
    total = len(each) / effect + 2
    gained, lost = ((each.count(sign) / effect + 1) / total for sign in (1, -1))
    half = _Z_95 * sqrt((gained + lost - (gained - lost) ** 2) / total)
    return max(-1.0, gained - lost - half), min(1.0, gained - lost + half)


@dataclass(frozen=True, slots=True)
class WordErrors:
    """Words inserted, deleted and replaced, against the number of words that were right to say."""

    errors: int
    words: int

    @property
    def rate(self) -> float | None:
        """Errors per reference word; None when there was no word."""
        return self.errors / self.words if self.words else None


def normalise(text: str) -> str:
    """Reduce a text to what counts: lower-case words and single spaces, without punctuation."""
    kept = "".join(c if c.isalnum() or c in " '" else " " for c in text.lower())
    return " ".join(kept.split())


def word_errors(pairs: Iterable[tuple[str, str]]) -> WordErrors:
    """Sum the word errors over (reference, heard) pairs."""
    errors = words = 0
    for reference, heard in pairs:
        wrong, said = count_word_errors(normalise(reference), normalise(heard))
        errors += wrong
        words += said
    return WordErrors(errors, words)
