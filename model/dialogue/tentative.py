"""Remember where a conversation stood when the user's turn was perhaps over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from model.dialogue.listener import UserTurn


class Noise(Protocol):
    """Draw random numbers from a state that can be put back."""

    def get_state(self) -> Any:
        """Return what the next draws depend on."""
        ...

    def set_state(self, state: Any) -> Any:
        """Make the next draws depend on what `get_state` has returned."""
        ...


@dataclass(slots=True)
class Bookmark:
    """Hold what a `Reopen` brings back. The audio that was left over stays where it is.

    Attributes:
        item_id: of the tentative commit.
        length: steps of the history.
        turn: the user's turn, None if there was none.
        voice: piece of the reply's voice.
        paid: text and audio steps that responses have been charged for.
        noise: state of the session's noise.
    """

    item_id: str
    length: int
    turn: UserTurn | None
    voice: int
    paid: tuple[int, int]
    noise: Any

    def shift(self, delta: int) -> None:
        """Move by `delta` steps."""
        self.length += delta
        if self.turn is not None:
            self.turn.start += delta
