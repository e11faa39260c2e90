"""One caller gives as much work as it can; another beside it notices nothing.

Nothing here is timed: what is looked at is the order in which the engine carried things out, how
much was parsed at once, and how many bytes were held.
"""

import asyncio
import base64
import json
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from model.engine.local import LocalEngine
from model.messages import AppendText, Command, Output, Respond
from server.audio.silero import SileroModel
from server.config.settings import Settings
from server.protocol.wire import parse
from server.session.session import SessionLimits
from tests.server.fakes import EchoCore
from tests.server.serving import Served, serving
from tests.server.session.live import TIMEOUT_S, living

_MIB = 1 << 20


class NotingCore(EchoCore):
    """Remember what was carried out, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.commands: list[Command] = []

    def apply(self, command: Command) -> list[Output]:
        """Answer."""
        self.commands.append(command)
        return super().apply(command)


@asynccontextmanager
async def _session(served: Served) -> AsyncIterator[ClientConnection]:
    async with connect(f"{served.url}/v1/realtime", max_queue=None, max_size=None) as client:
        await _until(client, "session.created")
        yield client


async def _until(client: ClientConnection, kind: str) -> dict[str, Any]:
    async with asyncio.timeout(TIMEOUT_S * 3):
        while True:
            event: dict[str, Any] = json.loads(await client.recv())
            assert event["type"] == kind or event["type"] != "error", event
            if event["type"] == kind:
                return event


def _item(text: str, role: str = "system", **fields: Any) -> str:
    content = [{"type": "input_text", "text": text}]
    item = {"type": "message", "role": role, "content": content}
    return json.dumps({"type": "conversation.item.create", "item": item, **fields})


async def _ask(client: ClientConnection, text: str) -> None:
    await client.send(_item(text, "user"))
    await client.send(json.dumps({"type": "response.create"}))
    done = await _until(client, "response.done")
    assert done["response"]["status"] == "completed"


def _between(commands: list[Command], text: str) -> int:
    """Count what was carried out for others between a victim's question and its answer."""
    asked = next(i for i, c in enumerate(commands) if isinstance(c, AppendText) and c.text == text)
    session_id = commands[asked].session_id
    answered = next(
        i
        for i, c in enumerate(commands)
        if i > asked and isinstance(c, Respond) and c.session_id == session_id
    )
    return sum(c.session_id != session_id for c in commands[asked:answered])


async def _flooded(flood: list[str]) -> tuple[int, int]:
    """Let one send a flood and another ask meanwhile; return how much came between, and in all."""
    core = NotingCore()
    async with (
        serving(LocalEngine(core), Settings()) as served,
        _session(served) as attacker,
        _session(served) as victim,
    ):

        async def attack() -> None:
            for frame in flood:
                await attacker.send(frame)
            await attacker.send(json.dumps({"type": "response.create"}))

        async def read() -> None:
            await _until(attacker, "response.done")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(attack())
            reading = tasks.create_task(read())
            for number in range(3):
                await _ask(victim, f"question {number}")
            await reading
        between = [_between(core.commands, f"question {number}") for number in range(3)]
        return max(between), len(core.commands)


async def test_a_flood_of_items() -> None:
    """Thousands at once: a question waits for a turn of them, and nobody is closed."""
    between, total = await _flooded([_item("word")] * 5_000)
    assert between <= 32
    assert total > 5_000


async def test_a_history_that_is_told_again_and_again() -> None:
    """Fourteen edits at the front of 500 items, each of which tells all of it anew."""
    audio: dict[str, Any] = {"input": {"turn_detection": None}}
    session = {"type": "realtime", "audio": audio}
    flood = [json.dumps({"type": "session.update", "session": session})]
    flood += [_item(f"word {number}") for number in range(500)]
    sound = json.dumps({"type": "input_audio_buffer.append", "audio": "AAAA" * 400})
    for number in range(14):
        flood += [_item(f"edit {number}", previous_item_id="root"), sound]
    between, total = await _flooded(flood)
    assert between <= 32
    assert total > 1_000


@pytest.mark.parametrize(
    "frame",
    [
        "[],",
        '"",',
        '{"a":',
        "1e1,",
        '\\"',
        '"\\',
    ],
)
async def test_a_frame_of_nothing(frame: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """24 MiB that are no sound are refused, and no more than the bound of it is ever parsed."""
    parsed: list[int] = []
    loads = json.loads

    def noting(text: str, **options: Any) -> Any:
        parsed.append(len(text))
        return loads(text, **options)

    monkeypatch.setattr(json, "loads", noting)
    prefix = '{"type": "conversation.item.create", "item": ['
    async with living(SileroModel()) as live:
        await live.until("session.created")
        live.transport.incoming.put_nowait(prefix + frame * (24 * _MIB // len(frame)))
        error = await live.until("error")
        assert error["error"]["code"] == "invalid_event"
        live.say("hello")
        await live.until("response.done")
        live.transport.disconnect()
    assert max(parsed) <= parse.MAX_EVENT_CHARS + 1024


async def test_sound_takes_the_memory_of_sound() -> None:
    """Nine minutes in one append: some copies of the text, and not a hundred; and none is kept."""
    model = SileroModel()
    audio = base64.b64encode(b"\xff" * (8_000 * 540)).decode()
    audio_format = {"type": "audio/pcmu"}
    session = {"type": "realtime", "audio": {"input": {"format": audio_format}}}
    async with living(model) as live:
        live.send(type="session.update", session=session)
        await live.until("session.updated")
        frame = json.dumps({"type": "input_audio_buffer.append", "audio": audio})
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        live.transport.incoming.put_nowait(frame)
        live.send(type="input_audio_buffer.clear")
        await live.until("input_audio_buffer.cleared")
        after, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        live.transport.disconnect()
    assert peak - before < 6 * len(audio)
    assert after - before < len(audio) // 4


async def test_more_sound_than_may_wait() -> None:
    """15 MiB of a telephone's sound are half an hour: refused once decoded, before it is heard."""
    audio = base64.b64encode(b"\xff" * (15 * _MIB)).decode()
    limits = SessionLimits(max_backlog_events=64, send_timeout_s=TIMEOUT_S)
    async with living(SileroModel(), limits) as live:
        session = {"type": "realtime", "audio": {"input": {"format": {"type": "audio/pcmu"}}}}
        live.send(type="session.update", session=session)
        live.send(type="input_audio_buffer.append", audio=audio)
        error = await live.until("error")
        assert error["error"]["code"] == "input_audio_buffer_full"
        live.transport.disconnect()
