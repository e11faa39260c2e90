"""Hold one connection of a session: its own dialect, and what waits to be sent to it."""

import asyncio

import structlog

from server.protocol.dialects.ga import Dialect
from server.protocol.events import Hangup
from server.protocol.server_events import ServerEvent
from server.protocol.wire.write import encode
from server.session.outbox import Outbox
from server.session.transport import Transport

_CLOSE_TIMEOUT_S = 5.0


class Line:
    """Join a transport and what is spoken on it.

    Args:
        transport: the connection.
        dialect: how events look on it.
        max_events: that may wait for its reader.

    Attributes:
        is_lost: done once the reader is so far behind that it is sent nothing more.
        is_over: set once the session neither reads nor writes it any more.
    """

    def __init__(self, transport: Transport, dialect: Dialect, max_events: int) -> None:
        self.transport = transport
        self.dialect = dialect
        self._outbox = Outbox(max_events)
        self.is_lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_over = asyncio.Event()

    def text(self, event: ServerEvent, event_id: str) -> str | None:
        """Return an event as it looks here, None where there is no such event."""
        written = self.dialect.write(event, event_id)
        return None if written is None else encode(written)

    def put(self, item: str | Hangup) -> None:
        """Send an event's text, or the end, after what waits already.

        Raises:
            SlowReaderError: too much waits already.
        """
        self._outbox.put(item)

    def lose(self) -> None:
        """Give the reader up."""
        if not self.is_lost.done():
            self.is_lost.set_result(None)

    async def write(self, timeout_s: float) -> Hangup | None:
        """Send what comes until the end, and say how to close; None if the peer is gone."""
        return await self._outbox.send_to(self.transport, timeout_s)

    async def close(self, hangup: Hangup, log: structlog.stdlib.BoundLogger) -> None:
        """Close the connection, whose peer may not answer."""
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self.transport.close(hangup)
        except TimeoutError:
            log.warning("the connection did not close in time")
