"""Let the user's turn be over, perhaps: a response may begin, and the user may still go on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from model.errors import EngineError
from model.turns.history import History, StepCount
from model.turns.listener import Listener, UserTurn
from model.turns.speaker import Speaker

# A worked example, with time from left to right. The user says "my name is ... peter" and pauses.
#
#     the user        my name is  (pause of 200 ms)  peter
#     gateway                     ^ 96 ms: tentative commit; a reply is asked for, and kept back
#     history         [L L L L L] [<user> my name is <reply> nice ...]
#     bookmark        length = 5, the live transcript, usage, the state of the noise
#
# The user goes on before the turn counts as over. The gateway sends `Reopen`, and
#
#     history         [L L L L L]                cut back to the bookmark
#     model's state   rewound to 5 steps         at its next step, as `history.fed` says
#     listener        hears the silence and "peter" as steps 6, 7, ...
#
# The noise goes back as well, so the conversation goes on with the same choices, token for token,
# as if the pause had never been tried. Had the user stayed silent, the reply would have gone out at
# the turn's end, already begun.


class Noise(Protocol):
    """Draw random numbers from a state that can be put back."""

    def get_state(self) -> Any:
        """Return what the next draws depend on."""
        ...

    def set_state(self, state: Any) -> Any:
        """Make the next draws depend on what `get_state` has returned."""
        ...


@dataclass(slots=True)
class _Bookmark:
    """What a `Reopen` brings back. The audio that was left over stays where it is.

    Attributes:
        item_id: of the tentative commit.
        length: steps of the history.
        turn: the user's turn, None if there was none.
        prefix: pieces that the conversation began with.
        paid: steps that responses have been charged for.
        noise: state of the session's noise.
    """

    item_id: str
    length: int
    turn: UserTurn | None
    prefix: tuple[int, ...]
    paid: StepCount
    noise: Any


class TentativeCommit:
    """Keep a way back to the user's turn for as long as it may go on.

    Args:
        history: of the conversation; written.
        listener: who heard the turn.
        speaker: who replies to it.
        noise: what the session's choices are drawn with, if they are.
    """

    __slots__ = ("_bookmark", "_history", "_listener", "_noise", "_speaker")

    def __init__(
        self, history: History, listener: Listener, speaker: Speaker, noise: Noise | None
    ) -> None:
        self._history, self._listener, self._speaker = history, listener, speaker
        self._noise = noise
        self._bookmark: _Bookmark | None = None

    def commit(self, item_id: str) -> None:
        """Remember this moment, in which the turn is over, perhaps."""
        turn = self._listener.turn
        self._bookmark = _Bookmark(
            item_id,
            len(self._history),
            None if turn is None else turn.copy(),  # the listener goes on changing its own
            prefix=self._history.prefix_pieces,
            paid=self._speaker.paid,
            noise=None if self._noise is None else self._noise.get_state(),
        )

    def confirm(self) -> None:
        """Let the turn be over, if one was perhaps; audio that was left is no part of it."""
        if self._bookmark is not None:
            self._bookmark = None
            self._listener.frames.clear()

    def shift(self, delta: int) -> None:
        """Move along with the steps of the history."""
        mark = self._bookmark
        if mark is not None:
            mark.length += delta
            if mark.turn is not None:
                mark.turn.start += delta

    def reopen(self, item_id: str) -> bool:
        """Go back to that moment: whatever was made since leaves no trace.

        Returns:
            Whether a turn is in progress again; one without any audio never was.

        Raises:
            EngineError: the turn is not one that can go on.
        """
        mark, history = self._bookmark, self._history
        if mark is None or mark.item_id != item_id:
            raise EngineError(f"the turn {item_id!r} is not one that can go on")
        self.shift(history.replace_prefix(mark.prefix))
        history.cut(mark.length)
        self._speaker.reply, self._speaker.paid = None, mark.paid
        if self._noise is not None:
            self._noise.set_state(mark.noise)
        self._bookmark = None
        if mark.turn is not None:
            self._listener.resume(mark.turn)
        return mark.turn is not None
