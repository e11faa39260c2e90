"""Write the arguments of a function call, so that its schema accepts them whatever the model says.

What can only be so is written at once. Where the model's pieces spell something of what may come
next, the model chooses among them. The rest, such as whether an optional property is there, is
decided for a short text.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections import Counter
from itertools import product

import numpy as np
import numpy.typing as npt

from model.schemas.grammar import Matcher
from model.schemas.spelling import Speller

MAX_BYTES = 8192
# Of these bytes, the steps that the schema leaves open: each costs a look at the grammar.
MAX_DECISIONS = 1024
# A longer number is more than most readers can tell from its neighbours.
_MAX_DIGITS = 15
# As many bytes as can be tried out one after another.
_FEW = 16


def _ranks(order: bytes) -> list[int]:
    return [order.index(byte) if byte in order else len(order) + byte for byte in range(256)]


# The order in which a text is closed if the model has no say. `}` before `,`: no more properties
# than needed. `0` before `t`: a number is shorter than a truth.
# Outside strings, what ends a value comes first and what opens another one last.
_OUTSIDE = _ranks(b'}],"0123456789-tnf.eE[{')
_INSIDE = _ranks(b'"abcdefghijklmnopqrstuvwxyz0123456789 ABCDEFGHIJKLMNOPQRSTUVWXYZ')


class Arguments:
    """Hold one call's arguments while they are written.

    Args:
        parameters: JSON schema of the arguments, as JSON text.
        speller: of the model's vocabulary.

    Attributes:
        choices: pieces among which the model is to choose next, each with the token it spells;
            none when the arguments are complete or too long.

    Raises:
        GrammarError: also from every method: the schema cannot be compiled, or it is more than
            can be followed.
    """

    def __init__(self, parameters: str, speller: Speller) -> None:
        self._speller = speller
        self._matcher = Matcher(parameters, speller.alphabet)
        self._place = _Place()
        self._decoder = getincrementaldecoder("utf-8")()
        self._num_bytes = 0
        self._num_decisions = 0
        self.choices: dict[int, int] = {}

    @property
    def left_out(self) -> tuple[str, ...]:
        """Return what of the schema the text need not satisfy."""
        return self._matcher.left_out

    @property
    def is_complete(self) -> bool:
        """Tell whether what was written is a whole text that the schema accepts."""
        return self._matcher.is_complete

    @property
    def is_too_long(self) -> bool:
        """Tell whether the bounds are reached; what was written is then all there will be."""
        return self._num_bytes > MAX_BYTES or self._num_decisions > MAX_DECISIONS

    def choose(self, piece: int) -> str:
        """Write what the model chose, one of `choices`; return what was written."""
        return self._decoder.decode(self._write(self.choices[piece]))

    def go_on(self) -> str:
        """Write up to where the model has to choose next; return what was written."""
        written = b""
        self.choices = {}
        while not self._is_over():
            written += self._write_forced()
            if self._is_over():
                break
            allowed = self._matcher.allowed()
            choices = self._find_choices(allowed)
            # With one choice there is nothing to ask. It is written, and the next place is looked
            # at.
            if len(choices) > 1:
                self.choices = choices
                break
            written += self._write(next(iter(choices.values()), self._shortest(allowed)))
        return self._decoder.decode(written)

    def close(self) -> str:
        """Write the rest without the model, shortly; return what was written."""
        self.choices = {}
        written = b""
        while not self._is_over():
            written += self._write_forced()
            if not self._is_over():
                written += self._write(self._shortest(self._matcher.allowed()))
        return self._decoder.decode(written)

    def _is_over(self) -> bool:
        return self.is_complete or self.is_too_long

    def _write(self, token: int) -> bytes:
        self._num_decisions += 1
        return self._note(self._matcher.take(token))

    def _write_forced(self) -> bytes:
        return self._note(self._matcher.take_forced())

    def _note(self, data: bytes) -> bytes:
        self._num_bytes += len(data)
        for byte in data:
            self._place.move(byte)
        return data

    # A worked example: the schema asks for a "city", and `{"city":"` is written. Every byte of a
    # string is allowed, but only spellings that can open one are offered: "paris" and not " paris".
    # After "paris" those are offered that go on, " north" or "ian", and `<speak>`, which stands for
    # the closing quote.
    def _find_choices(self, allowed: npt.NDArray[np.bool_]) -> dict[int, int]:
        """Return the pieces that spell something of what is allowed, and the tokens they spell."""
        speller, place = self._speller, self._place
        first_byte = speller.alphabet.num_spellings
        end = next((first_byte + byte for byte in place.ends if allowed[first_byte + byte]), None)
        # The sixteenth digit is not asked for: a float has no more than fifteen that can be told
        # apart.
        if end is not None and place.num_digits >= _MAX_DIGITS:
            return {speller.end: end}
        if not place.is_in_string:
            fits = speller.is_sign
        else:
            fits = speller.opens if place.is_at_word else speller.continues
        tokens = np.flatnonzero(allowed[:first_byte] & fits)
        # A piece may have several spellings that fit, in small letters and in capitals. The first
        # one is meant, which is the plain one.
        pieces, first = np.unique(speller.pieces[tokens], return_index=True)
        choices = dict(zip(pieces.tolist(), tokens[first].tolist(), strict=True))
        return choices if end is None else {**choices, speller.end: end}

    def _shortest(self, allowed: npt.NDArray[np.bool_]) -> int:
        """Return the token of the byte after which the text probably ends soonest.

        Where few are allowed, that is one with which the string or number can end. Otherwise it is
        one that it has less of: whatever loops a pattern has, the way out is tried in the end.
        """
        place, first_byte = self._place, self._speller.alphabet.num_spellings
        ranks = _INSIDE if place.is_in_string else _OUTSIDE
        options: list[int] = np.flatnonzero(allowed[first_byte:]).tolist()
        options.sort(key=lambda byte: (place.uses[byte], ranks[byte]))
        best = options[0]
        # What a pattern allows next may lead away from the end. Where there are few bytes, each is
        # tried together with a byte that ends the value: `^a(b|cd)$` after "a" takes "b".
        if best not in place.ends and len(options) <= _FEW:
            for byte, end in product(options, place.ends):
                if self._matcher.allows([first_byte + byte, first_byte + end]):
                    best = byte
                    break
        return first_byte + best


class _Place:
    """Know where in a JSON text one is.

    Attributes:
        is_in_string: whether a string has begun and not ended.
        is_at_word: whether a word of it begins here that needs no space before it.
        num_digits: digits so far, in a number.
        uses: bytes so far, in a string or number.
    """

    def __init__(self) -> None:
        self.is_in_string = self.is_at_word = self._is_escaped = False
        self.num_digits = 0
        self.uses: Counter[int] = Counter()

    @property
    def ends(self) -> bytes:
        """Return the bytes that can end the string or number in progress."""
        return b'"' if self.is_in_string else b"}]," if self.num_digits else b""

    def move(self, byte: int) -> None:
        """Go past a byte."""
        # `\"` is a quote within a string. `\\` is a backslash, and a quote after it ends the
        # string: that is why the escape itself can be escaped.
        is_quote = byte == ord('"') and not self._is_escaped
        is_opened = is_quote and not self.is_in_string
        self.is_at_word = is_opened or (self.is_in_string and byte == ord(" "))
        if is_quote or (not self.is_in_string and byte in b"{}[],:"):
            self.is_in_string = is_opened
            self.num_digits = 0
            self.uses.clear()
            return
        self.uses[byte] += 1
        self._is_escaped = self.is_in_string and byte == ord("\\") and not self._is_escaped
        self.num_digits += not self.is_in_string and byte in b"0123456789"
