"""Say what a session needs of its connection."""

from typing import Protocol

from model.messages import Pcm
from server.protocol.events import EndReason, Hangup


class Player(Protocol):
    """Play replies in real time, where the transport does; it reports to `Session.played`.

    Items are played one after another, in the order in which they began.
    """

    def play(self, item_id: str, pcm: Pcm) -> None:
        """Play more of an item: float32 [samples] at the engine's rate."""
        ...

    def end(self, item_id: str) -> None:
        """Note that nothing more of an item comes."""
        ...

    def stop(self, item_id: str) -> None:
        """Play no more of an item than what has been reported."""
        ...

    def pause(self) -> None:
        """Play nothing for now; what is played is not reported meanwhile."""
        ...

    def resume(self) -> None:
        """Play on from where it was paused; where it was not, nothing changes."""
        ...


class Transport(Protocol):
    """Carry text frames to and from one client."""

    async def receive(self) -> str:
        """Return the next frame.

        Raises:
            DisconnectedError: the peer is gone.
        """
        ...

    async def send(self, text: str) -> None:
        """Send a frame, returning when the connection has room for more.

        Raises:
            DisconnectedError: the peer is gone.
        """
        ...

    async def close(self, hangup: Hangup) -> None:
        """Close the connection; a peer that is gone is no error."""
        ...

    @property
    def round_trip_s(self) -> float | None:
        """Return how long a message takes to the peer and back, None where that is not known."""
        ...

    def close_code(self, reason: EndReason) -> int:
        """Return the number that says so where connections close with one, and in the counts."""
        ...
