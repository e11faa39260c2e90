"""Word errors against counts made by hand."""

from __future__ import annotations

import pytest

from model.training.speech.wer import word_errors


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("six times seven", "six times seven", (0, 3)),
        ("six times seven", "Six times seven.", (0, 3)),
        ("six times seven", "six seven", (1, 3)),
        ("six times seven", "six times times seven", (1, 3)),
        ("six times seven", "six dimes seven", (1, 3)),
        ("six times seven", "", (3, 3)),
        ("", "well well", (2, 0)),
        ("a b c d", "b c d e", (2, 4)),
    ],
)
def test_word_errors(reference: str, hypothesis: str, expected: tuple[int, int]) -> None:
    """Word errors."""
    assert word_errors(reference, hypothesis) == expected
