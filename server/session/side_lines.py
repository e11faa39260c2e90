"""Serve the connections that join a session beside its own."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator

import structlog

from server.errors import DisconnectedError
from server.protocol.events import EndReason, Hangup
from server.session.line import Line
from server.session.outbox import TOO_SLOW, SlowReaderError

# Each costs every event once more.
_MAX_LINES = 4


class SideLines:
    """Hold the connections beside a session's own; iteration goes over a copy.

    A connection ends when its peer leaves or reads too slowly, which the session does not notice,
    or with the session.

    Args:
        session_id: names the tasks.
        send_timeout_s: how long a peer may take for one event.
        read: takes what a connection brings until its peer is gone, and returns how it went.
    """

    def __init__(
        self,
        session_id: str,
        send_timeout_s: float,
        read: Callable[[Line], Coroutine[None, None, DisconnectedError | None]],
    ) -> None:
        self._session_id = session_id
        self._send_timeout_s = send_timeout_s
        self._read = read
        self._lines: list[Line] = []
        self._readings: set[asyncio.Task[DisconnectedError | None]] = set()

    def __iter__(self) -> Iterator[Line]:
        """Go through them as they are now."""
        return iter([*self._lines])

    @property
    def is_full(self) -> bool:
        """Say whether no further one can join."""
        return len(self._lines) >= _MAX_LINES

    async def serve(
        self,
        line: Line,
        ended: asyncio.Future[Hangup | None],
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        """Serve one until it or the session ends.

        Args:
            line: the connection.
            ended: done when the session is over.
            log: of the session.
        """
        self._lines.append(line)
        reading = asyncio.create_task(self._read(line), name=f"read beside {self._session_id}")
        self._readings.add(reading)
        reading.add_done_callback(self._readings.discard)
        writing = asyncio.create_task(
            line.write(self._send_timeout_s), name=f"write beside {self._session_id}"
        )
        try:
            await asyncio.wait(
                (reading, writing, line.is_lost, ended), return_when=asyncio.FIRST_COMPLETED
            )
            self._lines.remove(line)
            hangup = await _hangup(line, writing, is_over=ended.done())
            if hangup is not None:
                await line.close(hangup, log)
        finally:
            if line in self._lines:
                self._lines.remove(line)
            for task in (reading, writing):
                task.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)

    async def stop_reading(self) -> None:
        """Take nothing more from them, because the session is over."""
        for reading in self._readings:
            reading.cancel()
        await asyncio.gather(*self._readings, return_exceptions=True)


async def _hangup(
    line: Line, writing: asyncio.Task[Hangup | None], *, is_over: bool
) -> Hangup | None:
    """Return how to close a connection, None if its peer has left."""
    if line.is_lost.done():
        return TOO_SLOW
    if is_over and not writing.done():
        try:
            line.put(Hangup(EndReason.SESSION_ENDED, "The session has ended."))
        except SlowReaderError:
            return TOO_SLOW
    return await writing if is_over or writing.done() else None
