"""Words and their pieces."""

from __future__ import annotations

from model.vocabulary import TurnVocabulary

PIECES = [f"<{i}>" for i in range(17)] + ["▁par", "ley", "▁", "x", "▁hi"]
PAR, LEY, MARK, X, HI = range(17, 22)
VOCABULARY = TurnVocabulary(pieces=PIECES, encode=lambda _: [], voices={"ann": 9})


def test_deltas_add_up_to_the_spelling() -> None:
    """A text begins without a space, also if its first piece is nothing but one."""
    for pieces in ([PAR, LEY, HI], [MARK, X, HI, PAR, LEY], [HI]):
        text = "".join(VOCABULARY.delta(pieces[:i], piece) for i, piece in enumerate(pieces))
        assert text == VOCABULARY.spell(pieces)


def test_first_words_are_whole() -> None:
    """Words are counted where they start and kept to their last piece."""
    pieces = [PAR, LEY, MARK, X, HI]
    assert VOCABULARY.first_words(pieces, 0) == []
    assert VOCABULARY.first_words(pieces, 1) == [PAR, LEY]
    assert VOCABULARY.first_words(pieces, 2) == [PAR, LEY, MARK, X]
    assert VOCABULARY.first_words(pieces, 9) == pieces


def test_special_pieces_are_no_words() -> None:
    """What steers the dialogue spells nothing."""
    assert not VOCABULARY.is_word_piece(VOCABULARY.reply)
    assert not VOCABULARY.starts_word(VOCABULARY.pad)
    assert VOCABULARY.is_word_piece(LEY)
    assert not VOCABULARY.starts_word(LEY)


def test_of_a_long_text_the_end_is_spelled() -> None:
    """From a whole word on, in time that depends on what is kept."""
    read: list[str] = []

    def encode(text: str) -> list[int]:
        read.append(text)
        return [X] * len(text.split())

    vocabulary = TurnVocabulary(pieces=PIECES, encode=encode, voices={"ann": 9})
    assert vocabulary.last_pieces("one two", 4) == [X, X]
    assert vocabulary.last_pieces("word " * 10_000, 4) == [X] * 4
    assert vocabulary.last_pieces("x" * 10_000, 4) == [X]
    assert read == ["one two", "word word word word ", "x" * 24]
