"""Numbers as words."""

import pytest

from model.training.skills.numbers import LARGEST, number_words


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (20, "twenty"),
        (99, "ninety nine"),
        (100, "one hundred"),
        (101, "one hundred and one"),
        (144, "one hundred and forty four"),
    ],
)
def test_spelling(number: int, words: str) -> None:
    """Numbers are spelled the British way, without hyphens."""
    assert number_words(number) == words


def test_all_are_distinct() -> None:
    """No two numbers sound the same."""
    assert len({number_words(n) for n in range(LARGEST + 1)}) == LARGEST + 1


@pytest.mark.parametrize("number", [-1, 200])
def test_out_of_range_is_refused(number: int) -> None:
    """What is never spoken here is refused rather than misspelled."""
    with pytest.raises(ValueError, match="only 0 to 199"):
        number_words(number)
