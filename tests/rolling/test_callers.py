"""Callers count what they are told, whenever it comes."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from websockets.asyncio.server import ServerConnection, serve

from tests.rolling.callers import Caller, Figures
from tests.rolling.run import Drained

_SAMPLE = base64.b64encode(bytes(2)).decode()
_TOLD = {"type": "session.updated"}
_NUM_TURNS = 3


@asynccontextmanager
async def _called(told_at: int | None) -> AsyncIterator[Figures]:
    """Have one call of a caller with a server that is told to stop at one of its turns.

    Args:
        told_at: after the end of which reply it says so; None for never.
    """
    figures, is_over = Figures(), asyncio.Event()

    async def answer(client: ServerConnection) -> None:
        is_over.set()  # one call is enough
        for turn in range(_NUM_TURNS):
            await client.recv()
            await client.recv()
            done = {"type": "response.done", "response": {"status": "completed"}}
            sound = {"type": "response.output_audio.delta", "delta": _SAMPLE}
            for event in (sound, done, *([_TOLD] if turn == told_at else [])):
                await client.send(json.dumps(event))
        await client.wait_closed()

    async with serve(answer, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        await Caller(f"ws://127.0.0.1:{port}", 0, figures).talk(is_over)
        yield figures


async def test_a_caller_who_is_told_behind_its_last_reply_knows_it() -> None:
    """What comes while a reply is heard, or while the caller hangs up, is read as well."""
    for told_at in range(_NUM_TURNS):
        async with _called(told_at) as figures:
            assert (figures.calls, figures.lost) == (1, [])
            assert (figures.told, figures.untold) == (1, [])


async def test_a_caller_who_is_told_nothing_says_when_it_hung_up() -> None:
    """So that one who was leaving when the drain began can be told from one who was forgotten."""
    async with _called(None) as figures:
        assert (figures.calls, figures.told) == (1, 0)
        ((began_s, ended_s),) = figures.untold
        for at_s, leaving in ((began_s, 1), (ended_s, 1), (began_s - 9, 0), (ended_s + 9, 0)):
            assert Drained(at_s, 1, 0.0).leaving(figures.untold) == leaving
