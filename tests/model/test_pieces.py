"""The inner monologue is read piece by piece, and comes out as the text it is."""

from pathlib import Path

import pytest

from model.errors import TextError
from model.pieces import END_OF_PAD, PAD, Detokenizer, TextPieces
from tests.fakes.pieces import make_pieces

PIECES = TextPieces(make_pieces())


def deltas(pieces: list[int]) -> list[str]:
    """Read pieces one by one."""
    detokenizer = Detokenizer(PIECES)
    return [*map(detokenizer.push, pieces), detokenizer.finish()]


@pytest.mark.parametrize("text", ["hello there", "the dog, you?", "naïve 🦊 日本", "", "<unk> <s>"])
def test_what_is_encoded_is_decoded(text: str) -> None:
    """Whatever alphabet it is in, and whatever it looks like."""
    pieces = PIECES.encode(text)
    assert PIECES.decode(pieces) == text
    assert "".join(deltas(pieces)) == text


def test_words_begin_with_a_space_but_the_first() -> None:
    """A word is known to begin from its piece, whatever padding lies between."""
    first, second = PIECES.encode("the"), PIECES.encode("dog")
    parts = deltas([PAD, END_OF_PAD, *first, PAD, PAD, END_OF_PAD, *second])
    assert parts[:2] == ["", ""]
    assert "".join(parts) == "the dog"


def test_a_character_comes_when_it_is_whole() -> None:
    """Its bytes come one a piece, and padding may come in between."""
    fox = [PIECES.pieces.index(f"<0x{byte:02X}>") for byte in "🦊".encode()]
    assert deltas([*fox[:2], PAD, *fox[2:]]) == ["", "", "", "", "🦊", ""]


def test_bytes_that_are_no_character_are_marked() -> None:
    """At the next piece, and at the end; what follows is whole again."""
    byte = PIECES.pieces.index("<0xF0>")
    the = PIECES.encode("the")
    assert "".join(deltas([byte, *the])) == "\ufffd the"
    assert deltas([byte]) == ["", "\ufffd"]
    detokenizer = Detokenizer(PIECES)
    detokenizer.push(byte)
    detokenizer.finish()
    assert "".join(map(detokenizer.push, the)) == "the"


@pytest.mark.parametrize("piece", [END_OF_PAD, 1, 2, PAD, len(PIECES), 10**6, -1, -2])
def test_what_is_no_text_is_silent(piece: int) -> None:
    """Padding, control pieces, and numbers that no piece has."""
    assert deltas([piece]) == ["", ""]


def test_unknown_text_is_left_out() -> None:
    """The unknown piece would mean the end of padding."""
    pieces = TextPieces(make_pieces(has_bytes=False))
    assert pieces.decode(pieces.encode("fox 🦊 dog")) == "fox  dog"
    assert END_OF_PAD not in pieces.encode("fox 🦊 dog")


def test_files_that_hold_no_pieces(tmp_path: Path) -> None:
    """Are refused by name."""
    (tmp_path / "a.model").write_bytes(b"not one")
    with pytest.raises(TextError, match=r"a\.model: not a file of text pieces"):
        TextPieces.load(tmp_path / "a.model")
    with pytest.raises(TextError, match=r"b\.model: cannot be read \(No such file"):
        TextPieces.load(tmp_path / "b.model")
    (tmp_path / "c.model").write_bytes(make_pieces())
    assert TextPieces.load(tmp_path / "c.model").pieces == PIECES.pieces
