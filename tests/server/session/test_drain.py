"""Sessions are told until when they can go on, whenever they come."""

import json

import pytest

from server.audio.silero import SileroModel
from server.session.drain import Drain
from tests.server.session.live import living


def test_a_drain_begins_once_and_is_due_at_its_end() -> None:
    """Nobody is ended before the time that it was told."""
    now_s, told = 100.25, list[int]()
    drain = Drain(10, lambda: now_s)
    with drain.telling(told.append):
        assert not drain.is_begun
        assert not drain.is_due
        drain.begin()
        now_s = 105.0
        drain.begin()
        assert told == [111]
    with drain.telling(told.append):
        assert told == [111, 111]
    now_s = 110.9
    assert (drain.is_begun, drain.is_due) == (True, False)
    now_s = 111.0
    assert drain.is_due


def test_without_a_limit_there_is_nothing_to_tell() -> None:
    """The end comes at once."""
    told = list[int]()
    drain = Drain(0, lambda: 100.25)
    with drain.telling(told.append):
        drain.begin()
        with drain.telling(told.append):
            assert (drain.is_due, told) == (True, [])


@pytest.mark.usefixtures("no_tasks_left")
async def test_a_session_is_told_and_goes_on() -> None:
    """What it says of itself is the same but for its end, then and after an update."""
    async with living(SileroModel(), expires_at=1 << 40) as live:
        created = await live.until("session.created")
        live.drain.begin()
        told = await live.until("session.updated")
        assert told["session"]["expires_at"] == live.drain.ends_at
        assert told["session"] == created["session"] | {"expires_at": live.drain.ends_at}
        live.send(type="session.update", session={"type": "realtime", "instructions": "be kind"})
        updated = (await live.until("session.updated"))["session"]
        assert updated["expires_at"] == live.drain.ends_at
        live.say("hello")
        assert (await live.until("response.done"))["response"]["status"] == "completed"
        live.transport.disconnect()


@pytest.mark.usefixtures("no_tasks_left")
async def test_a_session_that_ends_earlier_is_told_nothing() -> None:
    """It knows its end."""
    async with living(SileroModel()) as live:
        await live.until("session.created")
        live.drain.begin()
        live.say("hello")
        assert json.loads(await live.transport.sent.get())["type"] == "conversation.item.added"
        live.transport.disconnect()
