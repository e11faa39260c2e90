"""Shares, intervals and word errors."""

import pytest

from model.training.evaluation.scoring import (
    Share,
    WordErrors,
    normalise,
    paired_interval,
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


def test_paired_interval_of_independent_turns() -> None:
    """Conversations of one turn: the published formula, worked out by hand."""
    changes = [[1]] * 5 + [[-1]] * 10 + [[0]] * 85
    assert paired_interval(changes) == pytest.approx((-0.1277, 0.0297), abs=1e-4)
    assert paired_interval([]) == (-1.0, 1.0)


def test_paired_interval_never_claims_no_change() -> None:
    """Runs without any difference leave room for one, less with more turns."""
    few, many = paired_interval([[0]] * 20), paired_interval([[0]] * 2000)
    assert few[0] < many[0] < 0 < many[1] < few[1]


def test_paired_interval_is_wider_where_turns_fall_together() -> None:
    """Ten losses in one conversation are less evidence than ten in ten."""
    together = [[-1] * 10, *([[0] * 10] * 9)]
    apart = [[-1, *[0] * 9]] * 10
    assert paired_interval(apart)[1] < 0 < paired_interval(together)[1]


def test_normalise_drops_what_cannot_be_heard() -> None:
    """Case, punctuation and spacing do not count; apostrophes do."""
    assert normalise("  What's  Three plus four? ") == "what's three plus four"


def test_word_errors_sum_over_texts() -> None:
    """The rate is over all words, so long texts weigh more."""
    total = word_errors([("one two three", "one two"), ("Four.", "four")])
    assert total == WordErrors(errors=1, words=4)
    assert total.rate == 0.25
