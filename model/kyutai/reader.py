"""Reading a text aloud: which pieces a text-to-speech model is given, step by step.

The model says in each step whether it is ready for the next word or goes on with the one before.
The pieces of the word that it then gets come one a step, and a model that also hears of a word to
come gets the pieces of that one beside them. Nothing here knows the model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

# What the text streams of the family mean by these pieces.
NEXT_WORD, PAD, NOTHING = 0, 3, -1


@dataclass(frozen=True, slots=True)
class Word:
    """Part of a text.

    Attributes:
        pieces: of the word; none for a mere pause.
        pause_steps: steps after it in which no other may begin.
    """

    pieces: tuple[int, ...]
    pause_steps: int = 0


class Reader:
    """Give a model one text.

    Args:
        words: the text.
        rows: of the model's text table, by which two pieces make one token.
        ahead: by how many words the second stream of pieces is ahead; 0 without one.
        most_steps: steps a word may take before the next one is due, its pieces counted.
        first_steps: steps before the first word.

    Attributes:
        begun: the step in which each of the words began, as far as they have.
        ended: the step in which the model asked for a word after the last; None before.

    Source: Zeghidour et al. 2025, "Streaming Sequence-to-Sequence Learning with Delayed Streams
    Modeling".
    """

    def __init__(
        self,
        words: Sequence[Word],
        *,
        rows: int,
        ahead: int = 0,
        most_steps: int = 6,
        first_steps: int = 2,
    ) -> None:
        self._words = deque(words)
        self._rows, self._ahead, self._most_steps = rows, ahead, most_steps
        self._patience = self._pause = first_steps
        self._pieces: deque[int] = deque()
        self._pieces_ahead: deque[int] = deque()
        self._step = 0
        self.begun: list[int] = []
        self.ended: int | None = None

    def give(self, chosen: int) -> int:
        """Take what the model chose in this step, and return the token that it gets instead.

        Args:
            chosen: its text token; all but `NEXT_WORD` mean that it goes on.
        """
        is_due = (
            not self._pieces and not self._pause and (chosen == NEXT_WORD or not self._patience)
        )
        begins = is_due and self._begin()
        self._step += 1
        if not begins:
            self._patience = max(self._patience - 1, 0)
            self._pause = max(self._pause - 1, 0)
        if not self._ahead:
            return NEXT_WORD if begins else self._next_piece()
        second = NOTHING
        if begins:
            second = NEXT_WORD
        elif self._pieces_ahead:
            second = self._pieces_ahead.popleft()
        return (second + 1) * self._rows + self._next_piece()

    def _begin(self) -> bool:
        """Go on to the next word; returns whether the model is told that one begins."""
        if not self._words:
            is_first = self.ended is None
            if is_first:
                self.ended = self._step
            return bool(self._ahead) and is_first
        word = self._words.popleft()
        self.begun.append(self._step)
        self._pause = word.pause_steps
        if not word.pieces:
            return False
        self._pieces.extend(word.pieces)
        self._patience = self._most_steps
        if self._ahead:
            spoken = [later for later in self._words if later.pieces]
            if len(spoken) >= self._ahead:
                self._pieces_ahead.extend(spoken[self._ahead - 1].pieces)
        return True

    def _next_piece(self) -> int:
        return self._pieces.popleft() if self._pieces else PAD
