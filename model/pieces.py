"""The text pieces of a checkpoint of the Kyutai family, and its inner monologue as text.

The model writes at most one piece a step, and pads in between. What it writes is read as it comes:
a piece that begins a word begins with a space, and characters that have no piece come byte by byte.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import sentencepiece

from model.errors import TextError

END_OF_PAD, PAD = 0, 3  # the family's own meaning of these pieces, whatever a file calls them

_WORD_START = "\u2581"
_BYTE = re.compile("<0x([0-9A-F]{2})>")  # as sentencepiece writes a byte


class TextPieces:
    """The pieces of one sentencepiece file.

    Args:
        model: bytes of the file.
        source: where they come from, for messages.

    Attributes:
        pieces: names of all pieces in their order; U+2581 stands for the space before a word.

    Raises:
        TextError: if the bytes are not such a file.
    """

    def __init__(self, model: bytes, source: str = "text pieces") -> None:
        processor = sentencepiece.SentencePieceProcessor()
        try:
            processor.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise TextError(f"{source}: not a file of text pieces ({error})") from error
        self._processor = processor
        self.pieces: tuple[str, ...] = tuple(
            processor.IdToPiece(i) for i in range(processor.GetPieceSize())
        )
        self._spelling = tuple(self._spell(i) for i in range(len(self.pieces)))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file of text pieces.

        Raises:
            TextError: if it cannot be read or is something else.
        """
        try:
            model = path.read_bytes()
        except OSError as error:
            raise TextError(f"{path}: cannot be read ({error.strerror or error})") from error
        return cls(model, str(path))

    def __len__(self) -> int:
        """Count the pieces."""
        return len(self.pieces)

    def encode(self, text: str) -> list[int]:
        """Return the pieces of a text, without any at its ends that mark them.

        What no piece spells is left out: the number of the unknown piece means something else to
        the model, the end of its padding.
        """
        ids: list[int] = self._processor.EncodeAsIds(text)
        return [i for i in ids if i != self._processor.unk_id()]

    def decode(self, pieces: Iterable[int]) -> str:
        """Return the text of pieces, as a `Detokenizer` reads it."""
        detokenizer = Detokenizer(self)
        return "".join(map(detokenizer.push, pieces)) + detokenizer.finish()

    def spelling(self, piece: int) -> bytes:
        """Return what a piece adds to a text, in UTF-8.

        Nothing for padding and for other pieces that are no text, and for numbers that no piece
        has: models have rows to spare.
        """
        return self._spelling[piece] if 0 <= piece < len(self._spelling) else b""

    def _spell(self, piece: int) -> bytes:
        processor, name = self._processor, self.pieces[piece]
        is_text = not (
            processor.IsControl(piece) or processor.IsUnknown(piece) or processor.IsUnused(piece)
        )
        # Pieces 0 and 3 say when a word is about to come and that none comes. They steer the
        # model's own timing, and are no text even if a file gives them a name.
        if piece in (END_OF_PAD, PAD) or not is_text:
            return b""
        if processor.IsByte(piece) and (byte := _BYTE.fullmatch(name)):
            return bytes.fromhex(byte[1])
        return name.replace(_WORD_START, " ").encode()


class Detokenizer:
    """Read the pieces of one utterance as they come.

    The parts that `push` and `finish` return are the text when put one after the other. It begins
    without a space. A character of several bytes comes when it is whole; bytes that never become
    one are replaced by U+FFFD.

    Args:
        pieces: of the checkpoint.
    """

    def __init__(self, pieces: TextPieces) -> None:
        self._pieces = pieces
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._has_begun = False

    def push(self, piece: int) -> str:
        """Return what one more piece adds; "" for padding, and for a part of a character."""
        # A worked example: "é" is the bytes C3 A9, which come as the pieces <0xC3> and <0xA9>.
        # After the first the decoder waits and nothing is returned; the second returns "é".
        return self._begin(self._decoder.decode(self._pieces.spelling(piece)))

    def finish(self) -> str:
        """Return what an unfinished character leaves, and begin the next utterance."""
        rest = self._begin(self._decoder.decode(b"", final=True))
        self._decoder.reset()
        self._has_begun = False
        return rest

    def _begin(self, text: str) -> str:
        if not self._has_begun:
            # The first piece of an utterance begins a word, and so with a space that nobody wants
            # in front of a text.
            text = text.lstrip(" ")
            self._has_begun = bool(text)
        return text
