"""Text and pieces: normalised words, a spelling for every word, special pieces in place."""

from __future__ import annotations

import random
import string
from pathlib import Path

import pytest

from model.errors import TextError
from model.text import NUM_SPECIAL, Special, Tokenizer, normalise, number_words

TEXTS = ["what is three plus four", "three plus four is seven", "hello what's your name"] * 20


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Return a small tokenizer."""
    return Tokenizer.train(TEXTS, 100)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What's 3+4?", "what's three plus four"),
        ("12 - 5 = ?", "twelve minus five equals"),
        ("6x7, 6 × 7, 6*7", "six times seven six times seven six times seven"),
        ("Say 'well-known', Zoë!", "say well known zoe"),
        ("1,250 and 144.", "one thousand two hundred and fifty and one hundred and forty four"),
        ("007 3.14", "zero zero seven three point one four"),
        ("It’s <eos> \n\t fine", "it's eos fine"),
        ("東京 🙂 ''", ""),
    ],
)
def test_normalise(text: str, expected: str) -> None:
    """Only words that can be said remain."""
    assert normalise(text) == expected
    assert normalise(expected) == expected


def test_number_words_are_all_different() -> None:
    """Numbers are spelled uniquely, the ends of each range correctly."""
    spelled = {number_words(n) for n in range(10_000)}
    assert len(spelled) == 10_000
    assert number_words(999_999) == (
        "nine hundred and ninety nine thousand nine hundred and ninety nine"
    )
    assert number_words(1_001) == "one thousand and one"


def test_special_pieces_have_their_numbers(tokenizer: Tokenizer) -> None:
    """Checkpoints rely on these numbers."""
    named = [
        "<pad>",
        "<unk>",
        "<bos>",
        "<user>",
        "<reply>",
        "<speak>",
        "<eos>",
        "<end>",
        "<system>",
    ]
    assert list(tokenizer.pieces[:9]) == named
    assert tokenizer.pieces[9:17] == tuple(f"<voice{i}>" for i in range(8))
    assert NUM_SPECIAL == 17


def test_every_word_can_be_spelled(tokenizer: Tokenizer) -> None:
    """Any lower-case word comes back, and none of it is special or unknown."""
    rng = random.Random(0)
    for _ in range(200):
        words = [
            "".join(rng.choices(string.ascii_lowercase, k=rng.randint(1, 9))) for _ in range(3)
        ]
        text = " ".join(words)
        pieces = tokenizer.encode(text)
        assert min(pieces) >= NUM_SPECIAL
        assert tokenizer.decode(pieces) == text
    assert tokenizer.encode("") == []


def test_text_cannot_spell_special_pieces(tokenizer: Tokenizer) -> None:
    """Typing a special piece types its letters."""
    pieces = tokenizer.encode("<speak> hello <eos>")
    assert min(pieces) >= NUM_SPECIAL
    assert tokenizer.decode(pieces) == "speak hello eos"


def test_decode_skips_special_pieces(tokenizer: Tokenizer) -> None:
    """A stream with pads between words reads as its words."""
    spread: list[int] = [Special.PAD]
    for piece in tokenizer.encode("three plus four"):
        spread += [piece, Special.PAD]
    assert tokenizer.decode([*spread, Special.EOS]) == "three plus four"


def test_training_is_repeatable_and_kept(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """The same texts give the same pieces, in memory and from a file."""
    tokenizer.save(tmp_path / "tokenizer.model")
    loaded = Tokenizer.load(tmp_path / "tokenizer.model")
    assert Tokenizer.train(TEXTS, 100).pieces == tokenizer.pieces == loaded.pieces
    assert len(loaded) == len(loaded.pieces) <= 100


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    """A missing or foreign file is named."""
    path = tmp_path / "tokenizer.model"
    with pytest.raises(TextError, match=r"tokenizer\.model: cannot be read"):
        Tokenizer.load(path)
    path.write_bytes(b"not a model")
    with pytest.raises(TextError, match=r"tokenizer\.model: not a sentencepiece model"):
        Tokenizer.load(path)
