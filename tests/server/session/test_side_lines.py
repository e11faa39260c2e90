"""Connections beside a session's own come, go and end without it, and end with it."""

import asyncio

import structlog

from server.errors import DisconnectedError
from server.protocol.dialects.ga import GaDialect
from server.protocol.events import EndReason, Hangup
from server.session.line import Line
from server.session.outbox import TOO_SLOW
from server.session.side_lines import SideLines
from tests.server.fakes import MemoryTransport

_LOG = structlog.get_logger("test")


class _Beside:
    """A group of lines, and how to let one in."""

    def __init__(self) -> None:
        self.lines = SideLines("sess_1", 10.0, self._read)
        self.ended: asyncio.Future[Hangup | None] = asyncio.get_running_loop().create_future()

    async def _read(self, line: Line) -> DisconnectedError | None:
        try:
            while True:
                await line.transport.receive()
        except DisconnectedError as gone:
            return gone

    async def joined(self) -> tuple[MemoryTransport, Line, asyncio.Task[None]]:
        """Let one in; returns when it is served."""
        transport = MemoryTransport()
        line = Line(transport, GaDialect(), 8)
        serving = asyncio.create_task(self.lines.serve(line, self.ended, _LOG))
        await asyncio.sleep(0)
        assert line in [*self.lines]
        return transport, line, serving


async def test_one_that_leaves_is_forgotten() -> None:
    """It is not closed, since nobody is there; the others stay."""
    beside = _Beside()
    leaving, _, over = await beside.joined()
    staying, line, serving = await beside.joined()
    leaving.disconnect()
    await over
    assert [*beside.lines] == [line]
    assert not leaving.closed.done()
    beside.ended.set_result(None)
    await serving
    assert staying.closed.result().reason is EndReason.SESSION_ENDED


async def test_one_that_reads_too_slowly_is_closed_alone() -> None:
    """Whoever sends gives its line up, and goes on with the rest."""
    beside = _Beside()
    slow, line, over = await beside.joined()
    line.lose()
    await over
    assert slow.closed.result() is TOO_SLOW
    assert [*beside.lines] == []
    assert not beside.ended.done()


async def test_there_is_room_for_four() -> None:
    """Each costs every event once more; whoever leaves makes room."""
    beside = _Beside()
    joined = [await beside.joined() for _ in range(3)]
    assert not beside.lines.is_full
    joined.append(await beside.joined())
    assert beside.lines.is_full
    joined[0][0].disconnect()
    await joined[0][2]
    assert not beside.lines.is_full
    beside.ended.set_result(None)
    await asyncio.gather(*(serving for _, _, serving in joined))


async def test_nothing_is_taken_from_them_once_the_session_is_over() -> None:
    """Their readers stop, and what they were sent before still goes out."""
    beside = _Beside()
    transport, line, serving = await beside.joined()
    line.put("last")
    beside.ended.set_result(None)
    await beside.lines.stop_reading()
    await serving
    assert transport.sent.get_nowait() == "last"
    assert transport.closed.result().reason is EndReason.SESSION_ENDED
