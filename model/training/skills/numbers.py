"""Numbers as words, the British way: one hundred and forty four."""

from __future__ import annotations

from model.training.skills.phrasing import word_list

_SMALL = word_list(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
)
_TENS = word_list("twenty thirty forty fifty sixty seventy eighty ninety")
LARGEST = 199


def number_words(number: int) -> str:
    """Spell a number from 0 to 199.

    Raises:
        ValueError: the number is outside that range.
    """
    if not 0 <= number <= LARGEST:
        message = f"cannot spell {number}: only 0 to {LARGEST} are spoken here"
        raise ValueError(message)
    if number < len(_SMALL):
        return _SMALL[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return _TENS[tens - 2] if ones == 0 else f"{_TENS[tens - 2]} {_SMALL[ones]}"
    rest = number - 100
    return "one hundred" if rest == 0 else f"one hundred and {number_words(rest)}"
