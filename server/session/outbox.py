"""Hold what waits to be sent to one client: in order, and bounded."""

import asyncio

from server.errors import DisconnectedError, TransportError
from server.protocol.events import EndReason, Hangup
from server.session.transport import Transport

TOO_SLOW = Hangup(EndReason.SLOW_READER, "The client reads too slowly.")
"""How a connection ends whose client does not take what it is sent."""

# Items with their sound are about a megabyte each, and a client can ask for many at once.
_MAX_CHARS = 64 << 20


class SlowReaderError(TransportError):
    """Report that a client does not take what it is sent."""


class Outbox:
    """Queue events for one connection.

    A client that falls `max_events` behind, or 64 MiB, has lost touch with the conversation: it is
    disconnected rather than served events that are minutes old. Nothing is dropped from the middle.
    """

    def __init__(self, max_events: int) -> None:
        self._queue: asyncio.Queue[str | Hangup] = asyncio.Queue(max_events)
        self._num_chars = 0

    def put(self, item: str | Hangup) -> None:
        """Add an event's text, or the end of the connection.

        Raises:
            SlowReaderError: too much waits already.
        """
        # Two limits, since events differ in size by a thousand times. 2,048 events
        # (`max_backlog_events`) of 80 ms of sound are 164 s that nobody has read. An event with an
        # item's whole sound is large, and 64 MiB of those are reached long before.
        num_chars = self._num_chars + (len(item) if isinstance(item, str) else 0)
        if self._queue.full() or num_chars > _MAX_CHARS:
            raise SlowReaderError(
                f"{self._queue.qsize()} events of {self._num_chars} characters wait for a reader "
                "that takes none"
            )
        self._queue.put_nowait(item)
        self._num_chars = num_chars

    async def get(self) -> str | Hangup:
        """Take the next one, waiting for it."""
        item = await self._queue.get()
        if isinstance(item, str):
            self._num_chars -= len(item)
        return item

    async def send_to(self, transport: Transport, timeout_s: float) -> Hangup | None:
        """Send what comes until the end, and say how to close; None if the peer is gone.

        Args:
            transport: leads to the client.
            timeout_s: how long one event may take to be taken.
        """
        while True:
            item = await self.get()
            if isinstance(item, Hangup):
                return item
            try:
                # The outbox may be short and the reader still be gone: one event that does not
                # leave is enough.
                async with asyncio.timeout(timeout_s):
                    await transport.send(item)
            except TimeoutError:
                return TOO_SLOW
            except DisconnectedError:
                return None
