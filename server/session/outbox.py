"""Hold what waits to be sent to one client: in order, and bounded."""

import asyncio

from server.errors import TransportError
from server.protocol.events import Hangup


class SlowReaderError(TransportError):
    """Report that a client does not take what it is sent."""


class Outbox:
    """Queue events for one connection.

    A client that falls `max_events` behind has lost touch with the conversation: it is
    disconnected rather than served events that are minutes old. Nothing is dropped from the middle.
    """

    def __init__(self, max_events: int) -> None:
        self._queue: asyncio.Queue[str | Hangup] = asyncio.Queue(max_events)

    def put(self, item: str | Hangup) -> None:
        """Add an event's text, or the end of the connection.

        Raises:
            SlowReaderError: the queue is full.
        """
        try:
            self._queue.put_nowait(item)
        except asyncio.QueueFull:
            message = f"{self._queue.maxsize} events wait for a reader that takes none"
            raise SlowReaderError(message) from None

    async def get(self) -> str | Hangup:
        """Take the next one, waiting for it."""
        return await self._queue.get()
