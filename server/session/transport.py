"""Say what a session needs of its connection."""

from typing import Protocol


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

    async def close(self, code: int, reason: str) -> None:
        """Close the connection; a peer that is gone is no error."""
        ...
