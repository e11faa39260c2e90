"""Say what the machine needs of a session's ears."""

from typing import Protocol

from server.protocol.events import Heard
from server.protocol.settings.config import SessionConfig


class Hearing(Protocol):
    """Turn audio that it is given into what was heard in it.

    After an `EndInDoubt` the model is asked whether the user's turn sounds finished. What follows
    depends on its answer, so `next` is called again once that is known.
    """

    @property
    def is_in_doubt(self) -> bool:
        """Say whether `next` returned `EndInDoubt` last."""
        ...

    @property
    def has_more(self) -> bool:
        """Say whether `next` may have something to return."""
        ...

    def configure(self, config: SessionConfig) -> None:
        """Follow a change of the session."""
        ...

    def next(self, *, is_finished: bool, would_interrupt: bool) -> Heard | None:
        """Return what was heard next, None if there is nothing more so far.

        Args:
            is_finished: after an `EndInDoubt`, whether the turn sounds finished to the model.
            would_interrupt: whether speech that begins would end a reply.
        """
        ...

    def finish(self) -> None:
        """Hear what is still held back of the audio so far."""
        ...

    def restart(self) -> None:
        """Begin anew after the buffer was committed or cleared by hand."""
        ...

    def sounds_finished(self) -> None:
        """Note that the model says by itself that the user's turn sounds finished."""
        ...
