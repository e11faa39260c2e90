"""Words, patterns and personal data are found, and what only looks like them is not."""

import pytest

from server.errors import ConfigError
from server.filters.checks import Finding, PatternList, PersonalData, WordList, passes_luhn
from server.filters.desk import is_hit, masked

REFUSED = Finding(is_refused=True)


@pytest.mark.parametrize(
    ("text", "is_refused"),
    [
        ("what a DARN day", True),
        ("darning socks", False),
        ("Take a  short, cut!", True),
        ("shortcut", False),
        ("ＤＡＲＮ", True),  # noqa: RUF001 - full-width letters on purpose
        ("", False),
    ],
)
async def test_words_are_whole_words(text: str, *, is_refused: bool) -> None:
    """In any case, form and spacing."""
    check = WordList(["darn", "short cut"])
    assert await check.judge(text) == Finding(is_refused=is_refused)


async def test_patterns_are_linear() -> None:
    """What would take a backtracking matcher for ever takes no time; what is no pattern is told."""
    check = PatternList([r"(a+)+$", r"order \d+"])
    assert await check.judge("a" * 5_000 + "b") == Finding()
    assert await check.judge("Order 66") == REFUSED
    for wrong in (r"(", r"(?=a)", r"(a)\1"):
        with pytest.raises(ConfigError, match="no pattern"):
            PatternList([wrong])


@pytest.mark.parametrize(
    ("digits", "is_valid"),
    [("4111111111111111", True), ("4111111111111112", False), ("79927398713", True)],
)
def test_the_check_digit_counts(digits: str, *, is_valid: bool) -> None:
    """As ISO/IEC 7812-1 has it."""
    assert passes_luhn(digits) is is_valid


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("call +1 (650) 253-0000 now", "call ** ***** ******** now"),
        ("six five zero two five three zero zero zero zero", "*** **** **** *** **** ***** "),
        ("card 4111 1111 1111 1111.", "card **** **** **** ****."),
        ("card 4111 1111 1111 1112.", None),
        ("write to a.b+c@example.co.uk, please", "write to *******************, please"),
        ("meet @ noon", None),
        ("in 1984 and 2026", None),
        ("i have two cats and three dogs", None),
        ("it costs 12,500 dollars", None),
    ],
)
async def test_personal_data_is_masked(text: str, hidden: str | None) -> None:
    """Each character of it but the spaces; the length stays."""
    check = PersonalData(["phone", "email", "card"], "US", is_masked=True)
    found = await check.judge(text)
    result = masked(text, [*found.masks])
    assert len(result) == len(text)
    assert result.startswith(hidden if hidden is not None else text)
    refusing = PersonalData(["phone", "email", "card"], "US", is_masked=False)
    assert (await refusing.judge(text)).is_refused is (hidden is not None)


async def test_only_the_chosen_kinds_are_found() -> None:
    """A card is no business of a check for addresses."""
    check = PersonalData(["email"], "US", is_masked=False)
    assert await check.judge("4111 1111 1111 1111") == Finding()


def test_sound_cannot_be_masked() -> None:
    """What a reply says aloud is refused; what has passed already is not judged again."""
    finding = Finding(masks=((2, 5),))
    assert is_hit(finding, "spoken", 0)
    assert not is_hit(finding, "spoken", 5)
    assert not is_hit(finding, "written", 0)
    assert is_hit(REFUSED, "heard", 0)
