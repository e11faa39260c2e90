"""Shares, intervals and word errors."""

import pytest

from model.training.evaluation.scoring import (
    Share,
    WordErrors,
    normalise,
    word_errors,
)


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
        (150, 200, 0.6857, 0.8049),
    ],
)
def test_wilson_interval(hits: int, total: int, low: float, high: float) -> None:
    """The bounds are those of published tables, and stay within 0..1."""
    assert Share(hits, total).interval == pytest.approx((low, high), abs=5e-4)


def test_nothing_counted_is_not_zero() -> None:
    """Without turns there is no share, and nothing is excluded."""
    assert Share(0, 0).value is None
    assert Share(0, 0).interval == (0.0, 1.0)
    assert WordErrors(0, 0).rate is None


def test_normalise_drops_what_cannot_be_heard() -> None:
    """Case, punctuation and spacing do not count; apostrophes do."""
    assert normalise("  What's  Three plus four? ") == "what's three plus four"


def test_word_errors_sum_over_texts() -> None:
    """The rate is over all words, so long texts weigh more."""
    total = word_errors([("one two three", "one two"), ("Four.", "four")])
    assert total == WordErrors(errors=1, words=4)
    assert total.rate == 0.25
