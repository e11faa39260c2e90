"""Text as pieces: lower-case words, a unigram vocabulary, and pieces that steer the dialogue."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Self

import sentencepiece

from model.errors import TextError

NUM_VOICES = 8
MORE_VOICES = 8  # that weights can be taught afterwards
_LETTERS = "abcdefghijklmnopqrstuvwxyz'"
_SMALL = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SIGNS = {
    "+": "plus",
    "−": "minus",
    "×": "times",
    "*": "times",
    "÷": "divided by",
    "/": "divided by",
}
# A worked example: "What's 3 × 4, or 1,250 - 7?" becomes "what's three times four or one thousand
# two hundred and fifty minus seven".
# Callers' texts go through these on the engine's thread: each takes time in proportion to the text.
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")
_MINUS = re.compile(r"(?<=\d)\s*[-–]\s*(?=\d)")
_TIMES = re.compile(r"(?<=\d)\s*x\s*(?=\d)")
_NUMBER = re.compile(r"(\d+)(?:\.(\d+))?")
_SYMBOLS = {"=": "equals", "&": "and", "%": "percent", "@": "at", "’": "'", "\u2018": "'"}


class Special(IntEnum):
    """Pieces that no text can spell; their numbers are part of every checkpoint."""

    PAD = 0  # no word at this step
    UNK = 1  # what no piece spells; normalised text never needs it
    BOS = 2  # start of a conversation
    USER = 3  # a user turn's words follow
    REPLY = 4  # the reply's words follow
    SPEAK = 5  # the reply's audio follows
    EOS = 6  # the reply's last frame
    END = 7  # the user's turn sounds finished
    SYSTEM = 8  # instructions follow
    VOICE0 = 9  # the first of `NUM_VOICES` voices
    # Pieces of models that were taught more than to answer; older ones have none of these.
    TOOL = 17  # a function that may be called: its name and parameters follow
    CALL = 18  # a call of one follows
    RESULT = 19  # what a call returned follows
    UNSURE = 20  # the user was not understood
    IMAGE = 21  # a patch of a picture
    VOICE8 = 22  # the first of `MORE_VOICES`


NUM_SPECIAL = Special.VOICE0 + NUM_VOICES
_SPECIAL_PIECES = [
    *(f"<{special.name.lower()}>" for special in Special if special < Special.VOICE0),
    *(f"<voice{i}>" for i in range(NUM_VOICES)),
]
_LATER_PIECES = [
    f"<{special.name.lower()}>" for special in Special if Special.VOICE0 < special < Special.VOICE8
]
_MORE_VOICES = [f"<voice{NUM_VOICES + i}>" for i in range(MORE_VOICES)]


def voice_piece(index: int) -> int:
    """Return the piece of a checkpoint's voice, counted from 0."""
    if index < NUM_VOICES:
        return Special.VOICE0 + index
    return Special.VOICE8 + index - NUM_VOICES


def normalise(text: str) -> str:
    """Reduce text to the lower-case words a speaker would say.

    Accents go, numbers and arithmetic signs are spelled, everything else becomes a space.

    Returns:
        Words of a to z and apostrophes, with single spaces between them.
    """
    # The order matters. Thousands first, or 1,250 would be 1 and 250. Then signs between digits,
    # while they still stand between digits: a hyphen elsewhere is no minus. Numbers last.
    text = text.lower()
    for symbol, word in _SYMBOLS.items():
        text = text.replace(symbol, word if word == "'" else f" {word} ")
    text = _THOUSANDS.sub("", text)
    text = _MINUS.sub(" minus ", text)
    text = _TIMES.sub(" times ", text)
    for sign, word in _SIGNS.items():
        text = text.replace(sign, f" {word} ")
    text = _NUMBER.sub(_spell_number, text)
    if not text.isascii():
        # Letter by letter: a whole text's marks would be sorted, which takes the square of how many
        # follow one another, and their order is nothing to us: they go.
        text = "".join(unicodedata.normalize("NFKD", c) for c in text)
        text = "".join(c for c in text if not unicodedata.combining(c))
    words = "".join(c if c in _LETTERS else " " for c in text).split()
    words = [word.strip("'") for word in words]
    return " ".join(word for word in words if word)


def number_words(number: int) -> str:
    """Spell 0 to 999,999 the British way: one hundred and forty four."""
    if number < 20:
        return _SMALL[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return _TENS[tens - 2] + (f" {_SMALL[ones]}" if ones else "")
    unit, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    count, rest = divmod(number, unit)
    # 105 is "one hundred and five", 1,005 "one thousand and five", 1,250 "one thousand two hundred
    # and fifty".
    joint = " and " if rest < 100 else " "
    # Counts above the unit are numbers themselves: 144,000 is the count 144 with the name thousand.
    return f"{number_words(count)} {name}" + (f"{joint}{number_words(rest)}" if rest else "")


def _spell_number(found: re.Match[str]) -> str:
    """Spell a number with or without digits after a point: 3.14 is three point one four."""
    whole, places = found.groups()
    spelled = f" {_spell_digits(whole)} "
    if places is not None:
        spelled += f"point {' '.join(_spell_digits(digit) for digit in places)} "
    return spelled


def _spell_digits(digits: str) -> str:
    """Spell a run of digits: as a number if it is one, digit by digit if it is long or 007."""
    # A telephone number is read digit by digit, and so is 007.
    if len(digits) > 6 or (len(digits) > 1 and digits.startswith("0")):
        return " ".join(_SMALL[int(digit)] for digit in digits)
    return number_words(int(digits))


class Tokenizer:
    """Turn text into pieces and back. Words begin with a piece that begins with U+2581.

    Args:
        model: bytes of a sentencepiece model whose first pieces are `Special` and the voices.
        source: where it comes from, for messages.

    Attributes:
        pieces: spelling of every piece.
        is_taught_prompts: whether it has the pieces of instructions, functions and pictures.
        num_special: pieces below this number are special, all others spell words.
        num_voices: voices that there are pieces for.

    Raises:
        TextError: if the bytes are not such a model.
    """

    def __init__(self, model: bytes, source: str = "tokenizer") -> None:
        self._model = model
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise TextError(f"{source}: not a sentencepiece model ({error})") from error
        self.pieces: tuple[str, ...] = tuple(
            self._processor.IdToPiece(i) for i in range(self._processor.GetPieceSize())
        )
        # A checkpoint knows pieces by their numbers. With a tokenizer of another order every
        # special piece would mean something else, and nothing would fail.
        if list(self.pieces[:NUM_SPECIAL]) != _SPECIAL_PIECES:
            raise TextError(
                f"{source}: expected the first pieces to be {' '.join(_SPECIAL_PIECES)}, "
                f"got {' '.join(self.pieces[:NUM_SPECIAL])}"
            )
        taught = NUM_SPECIAL + len(_LATER_PIECES)
        # The later pieces stand after the voices, so that the numbers of the first ones are the
        # same in all checkpoints. Which of the two kinds a tokenizer is shows by what stands there.
        self.is_taught_prompts = list(self.pieces[NUM_SPECIAL:taught]) == _LATER_PIECES
        self.num_special = taught if self.is_taught_prompts else NUM_SPECIAL
        self.num_voices = NUM_VOICES
        most = taught + MORE_VOICES
        if self.is_taught_prompts and list(self.pieces[taught:most]) == _MORE_VOICES:
            self.num_special, self.num_voices = most, NUM_VOICES + MORE_VOICES

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a model file.

        Raises:
            TextError: if it is missing or does not fit.
        """
        try:
            model = path.read_bytes()
        except OSError as error:
            raise TextError(f"{path}: cannot be read ({error.strerror})") from error
        return cls(model, str(path))

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> Self:
        """Learn pieces from texts, the same ones for the same texts in the same order.

        Args:
            texts: any text; it is normalised first. How often a word occurs matters.
            vocab_size: most pieces, special ones included; fewer if the texts need no more.
        """
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(normalise(text) for text in texts),
            model_writer=model,
            vocab_size=vocab_size,
            model_type="unigram",
            hard_vocab_limit=False,
            normalization_rule_name="identity",
            # Every letter is a piece, so that every word has a spelling.
            character_coverage=1.0,
            required_chars=_LETTERS,
            pad_id=Special.PAD,
            unk_id=Special.UNK,
            bos_id=Special.BOS,
            eos_id=-1,  # ours comes in the order of the special pieces
            pad_piece=_SPECIAL_PIECES[Special.PAD],
            unk_piece=_SPECIAL_PIECES[Special.UNK],
            bos_piece=_SPECIAL_PIECES[Special.BOS],
            # Control pieces, unlike user-defined ones, can never be typed.
            control_symbols=[
                *_SPECIAL_PIECES[Special.USER :],
                *_LATER_PIECES,
                *_MORE_VOICES,
            ],
            num_threads=1,
            minloglevel=2,
        )
        return cls(model.getvalue())

    def save(self, path: Path) -> None:
        """Write the model file that `load` reads."""
        path.write_bytes(self._model)

    def __len__(self) -> int:
        """Count the pieces, special ones included."""
        return len(self.pieces)

    def encode(self, text: str) -> list[int]:
        """Return the pieces of a text, normalised first; no special piece among them."""
        return list(self._processor.EncodeAsIds(normalise(text)))

    def decode(self, pieces: Sequence[int]) -> str:
        """Return the text of pieces; special ones are silent."""
        words = (self.pieces[piece] for piece in pieces if piece >= self.num_special)
        return "".join(words).replace("\u2581", " ").strip()
