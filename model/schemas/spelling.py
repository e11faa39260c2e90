"""Say how pieces that were made for speech spell JSON.

The starter's pieces spell lower-case words and nothing else. So a word stands for itself, with a
capital or in capitals where the schema leaves nothing else; a spoken digit or sign for its
character; and the piece that ends a reply's words ends a string or a number. What is left, which is
structure, is not the model's to choose.

A vocabulary that spells every byte would need one spelling a piece, the piece itself, and the rest
of the way from logits to arguments would be the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from model.schemas.grammar import Alphabet
from model.text import number_words
from model.vocabulary import WORD_START, TurnVocabulary

_SIGNS = {
    **{number_words(digit): str(digit) for digit in range(10)},
    "minus": "-",
    "point": ".",
    "yes": "true",
    "no": "false",
}


def spelled(vocabulary: TurnVocabulary) -> dict[str, Any]:
    """Return what a `Speller` needs of a vocabulary, in values that JSON can hold."""
    special = ("num_special", "pad", "bos", "user", "reply", "speak", "eos", "end")
    numbers = {name: int(getattr(vocabulary, name)) for name in special}
    return {"pieces": list(vocabulary.pieces), **numbers}


class Speller:
    """Know the spellings of a vocabulary's pieces, and where each of them may stand.

    Args:
        vocabulary: of the tokenizer.

    Attributes:
        vocabulary: of the tokenizer.
        end: the piece that ends a string or a number.
        alphabet: the spellings; where several of one piece fit, the first is meant.
        pieces: int64 [spellings], the piece of each.
        opens: bool [spellings], whether it can stand at a string's beginning, or after a space.
        continues: bool [spellings], whether it can stand elsewhere in a string.
        is_sign: bool [spellings], whether it can stand outside strings.
    """

    def __init__(self, vocabulary: TurnVocabulary) -> None:
        self.vocabulary, self.end = vocabulary, vocabulary.speak
        rows: list[tuple[int, str, bool, bool, bool]] = []
        words = [
            (piece, spelling)
            for piece, spelling in enumerate(vocabulary.pieces)
            if vocabulary.is_word_piece(piece)
        ]
        # A worked example, for the piece that spells "paris" at a word's beginning:
        #
        #     as written      "paris"   at a string's beginning, or after a space
        #                     " paris"  elsewhere in a string
        #     capitalised     "Paris"   " Paris"
        #     in capitals     "PARIS"   " PARIS"
        #
        # The plain spellings come first, so they win wherever the schema allows them. A pattern
        # such as ^[A-Z]{3}$ leaves only the capitals.
        for change in (str, str.capitalize, str.upper):
            for piece, spelling in words:
                if spelling.startswith(WORD_START):
                    bare = change(spelling.removeprefix(WORD_START))
                    rows += [
                        (piece, bare, True, False, False),
                        (piece, f" {bare}", False, True, False),
                    ]
                else:
                    rows.append((piece, change(spelling), True, True, False))
        by_word = {spelling.removeprefix(WORD_START): piece for piece, spelling in words}
        rows += [
            (by_word[word], sign, True, True, True)
            for word, sign in _SIGNS.items()
            if word in by_word
        ]
        rows = [row for row in rows if row[1]]
        self.alphabet = Alphabet([spelling.encode() for _, spelling, *_ in rows])
        self.pieces: npt.NDArray[np.int64] = np.array([row[0] for row in rows], dtype=np.int64)
        self.opens, self.continues, self.is_sign = (
            np.array([row[i] for row in rows], dtype=np.bool_) for i in (2, 3, 4)
        )
