"""Name the pieces that the dialogue program steers by, and spell the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from model.text import NUM_SPECIAL, Special

# How the tokenizer marks the first piece of a word.
WORD_START = "\u2581"
# Characters that are spelled for each piece that is wanted: English has five.
_CHARS_A_PIECE = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnVocabulary:
    """What the turn program knows of a tokenizer.

    Attributes:
        pieces: spelling of every piece; a word's first piece begins with `WORD_START`.
        encode: text to pieces, normalising it on the way.
        voices: voice name to its piece, the default voice first.
        num_special: pieces below this number are special, all others spell words.
        is_taught_prompts: whether the model was taught instructions, functions, doubt and pictures.
            One that was not has no pieces for them, and those numbers spell words.
    """

    pieces: Sequence[str]
    encode: Callable[[str], list[int]]
    voices: Mapping[str, int]
    num_special: int = NUM_SPECIAL
    is_taught_prompts: bool = False
    pad: int = Special.PAD
    bos: int = Special.BOS
    user: int = Special.USER
    reply: int = Special.REPLY
    speak: int = Special.SPEAK
    eos: int = Special.EOS
    end: int = Special.END
    call: int = Special.CALL
    result: int = Special.RESULT
    unsure: int = Special.UNSURE
    image: int = Special.IMAGE

    def is_word_piece(self, piece: int) -> bool:
        """Tell whether `piece` spells (part of) a word."""
        return piece >= self.num_special

    def starts_word(self, piece: int) -> bool:
        """Tell whether `piece` is the first of a word."""
        return self.is_word_piece(piece) and self.pieces[piece].startswith(WORD_START)

    def last_pieces(self, text: str, max_pieces: int) -> list[int]:
        """Return the last pieces of a text, whose beginning is not even read where it is long.

        To spell 64 KiB takes a tenth of a second, of which a thousand pieces would be kept.
        """
        max_chars = max_pieces * _CHARS_A_PIECE
        if len(text) > max_chars:
            text = text[-max_chars:]
            text = text[text.find(" ") + 1 :]  # from a whole word on
        return self.encode(text)[-max_pieces:]

    def spell(self, pieces: Sequence[int]) -> str:
        """Return the text of word pieces, without a space at either end."""
        return self.continuation(pieces).strip()

    def continuation(self, pieces: Sequence[int]) -> str:
        """Return the text that `pieces` add to a text before them, its leading space included."""
        return "".join(self.pieces[piece] for piece in pieces).replace(WORD_START, " ")

    def delta(self, before: Sequence[int], piece: int) -> str:
        """Return what `piece` adds to the text that `before` spells; a text starts unspaced."""
        # The piece "_two" adds " two" after a word, and "two" at the beginning of a text.
        text = self.continuation((piece,))
        return text if before else text.lstrip()

    def first_words(self, pieces: Sequence[int], num_words: int) -> list[int]:
        """Return the pieces of the first `num_words` words."""
        kept, seen = [], 0
        # A worked example: the pieces "_good", "_mor", "ning", where _ marks a word's beginning,
        # hold two words. The first word is "_good"; the third piece begins none and belongs to the
        # second.
        for piece in pieces:
            seen += self.starts_word(piece)
            if seen > num_words:
                break
            kept.append(piece)
        return kept
