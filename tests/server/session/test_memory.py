"""What a session held is free when it ends, without waiting for a collection of cycles."""

import asyncio
import gc
import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from server.audio.silero import SileroModel
from tests.server.session.live import living
from tests.server.sounds import base64_pcm, voice

WIRE_HZ = 24_000


@pytest.fixture
def _no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collection")
async def test_a_session_is_freed_at_its_end() -> None:
    """After a spoken turn, a typed one, a reply and a response beside it: nothing is left of it."""
    async with living(SileroModel()) as live:
        await live.until("session.created")
        for _ in range(2):
            live.send(
                type="input_audio_buffer.append",
                audio=base64_pcm(np.tile(voice(1.0, WIRE_HZ), 3)),
            )
        live.send(type="input_audio_buffer.commit")
        live.say("hello")
        await live.until("response.done")
        live.send(type="response.create", response={"conversation": "none"})
        await live.until("response.done")
        session, machine = live.session, live.session._machine
        held = {
            type(part).__name__: weakref.ref(part)
            for part in (
                session,
                machine,
                machine._state.conversation,
                machine._editing._feed,
                machine._listening,
                machine._responses,
                session._sound,
                session._sound._ears,
                session._side_lines,
                session._observers,
                session._desks,
                session._intake,
                session._own,
            )
        }
        del session, machine
        live.transport.disconnect()
    del live
    # A worker thread knows what it did last until it gets to forgetting it.
    await asyncio.get_running_loop().shutdown_default_executor()
    for _ in range(3):
        await asyncio.sleep(0)
    assert [name for name, ref in held.items() if ref() is not None] == []
