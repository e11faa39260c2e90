"""What pieces spell in JSON."""

from __future__ import annotations

from model.schemas.spelling import Speller
from model.text import NUM_SPECIAL
from model.vocabulary import TurnVocabulary

PIECES = [f"<{i}>" for i in range(NUM_SPECIAL)] + ["▁new", "ly", "▁two", "▁"]
SPELLER = Speller(TurnVocabulary(pieces=PIECES, encode=lambda _: [], voices={"ann": 9}))


def spellings(piece: str, where: str) -> list[str]:
    """Return what a piece can stand for in such a place, the first choice first."""
    fits = getattr(SPELLER, where)
    return [
        spelling.decode()
        for spelling, owner, is_fit in zip(
            SPELLER.alphabet.tokens, SPELLER.pieces, fits, strict=False
        )
        if is_fit and owner == PIECES.index(piece)
    ]


def test_words_come_as_they_are_before_they_come_in_capitals() -> None:
    """A word has a space before it unless it begins the string; lower case is the first choice."""
    assert spellings("▁new", "opens") == ["new", "New", "NEW"]
    assert spellings("▁new", "continues") == [" new", " New", " NEW"]
    assert spellings("ly", "opens") == spellings("ly", "continues") == ["ly", "Ly", "LY"]


def test_spoken_digit_is_a_word_first() -> None:
    """In a string a digit is written out if it can be; outside strings it is a digit."""
    assert spellings("▁two", "opens") == ["two", "Two", "TWO", "2"]
    assert spellings("▁two", "is_sign") == ["2"]
    assert spellings("▁new", "is_sign") == []


def test_nothing_spells_nothing() -> None:
    """Special pieces have no spelling, and a space has none where none is needed."""
    assert spellings("▁", "opens") == []
    assert min(SPELLER.pieces) >= NUM_SPECIAL
