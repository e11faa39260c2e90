"""Calls outlive the engine: its process is killed in the middle of them, and they go on.

The engine is an echo that says all that its session ever heard, in a real process of its own.
"""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from model.engine.process import ProcessEngine, RestartPolicy
from server.config.load import load_settings
from server.config.settings import Settings
from server.engine import make_engine
from tests.server.fakes import EchoSpec
from tests.server.serving import Served, serving
from tests.server.sounds import base64_pcm, silence, voice

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 60.0
Event = dict[str, Any]

pytestmark = pytest.mark.usefixtures("no_tasks_left")


@dataclass
class World:
    """A server, the engine behind it, and what makes the engine die at its start."""

    served: Served
    engine: ProcessEngine
    poison: Path

    def kill(self) -> None:
        """Kill the engine's process."""
        assert self.engine.process_id is not None
        os.kill(self.engine.process_id, signal.SIGKILL)

    async def until_status(self, status: str) -> int:
        """Wait for what `/readyz` says; returns its HTTP status."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                code, body = await self.served.get("/readyz")
                if body["status"] == status:
                    return code


@asynccontextmanager
async def _world(tmp_path: Path) -> AsyncIterator[World]:
    poison = tmp_path / "poison"
    engine = ProcessEngine(EchoSpec(poison), RestartPolicy(delays_s=(0.0, 0.0)))
    async with serving(engine, Settings()) as served:
        yield World(served, engine, poison)


async def _send(client: ClientConnection, kind: str, **event: Any) -> None:
    await client.send(json.dumps({"type": kind, **event}))


async def _until(client: ClientConnection, kind: str) -> Event:
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            event: Event = json.loads(await client.recv())
            if event["type"] == kind:
                return event
            assert event["type"] != "error", event


async def _say(client: ClientConnection, text: str, **response: Any) -> None:
    """Type a turn and ask for an answer."""
    content = [{"type": "input_text", "text": text}]
    item = {"type": "message", "role": "user", "content": content}
    await _send(client, "conversation.item.create", item=item)
    await _send(client, "response.create", response=response)


async def _reply(client: ClientConnection) -> str:
    """Return the words of the next reply."""
    done = await _until(client, "response.done")
    assert done["response"]["status"] == "completed"
    (item,) = done["response"]["output"]
    (part,) = item["content"]
    words: str = part["transcript"]
    return words


async def _until_error(client: ClientConnection) -> None:
    error = (await _until(client, "error"))["error"]
    assert (error["type"], error["code"]) == ("server_error", "engine_failed")
    assert "SIGKILL" in error["message"]


def _connect(world: World) -> connect:
    # A client that does not read the rest of a reply closes without waiting for room.
    return connect(f"{world.served.url}/v1/realtime?model=starter", max_queue=None)


async def test_killed_while_one_is_spoken_to_and_another_is_idle(tmp_path: Path) -> None:
    """The reply fails as documented, both are told, and both are answered with all they said."""
    async with _world(tmp_path) as world, _connect(world) as spoken_to, _connect(world) as idle:
        await _say(idle, "hello")
        assert await _reply(idle) == "you said hello"
        await _say(spoken_to, "be endless")
        await _until(spoken_to, "response.output_audio.delta")
        world.kill()

        done = (await _until(spoken_to, "response.done"))["response"]
        assert done["status"] == "failed"
        assert done["status_details"]["error"]["code"] == "engine_failed"
        for client in (spoken_to, idle):
            await _until_error(client)
        # Whether the engine is back by now or not, whoever is served already may go on.
        await _say(idle, "again")
        assert await _reply(idle) == "you said hello, again"
        await _send(spoken_to, "response.create")
        words = ""
        while words != "you said be endless":
            words += (await _until(spoken_to, "response.output_audio_transcript.delta"))["delta"]
        assert await world.until_status("ready") == 200
        _, metrics = await world.served.get("/metrics")
        assert 'parley_engine_losses_total{engine="0",model="starter"} 1.0' in metrics
        assert 'parley_engine_restarts_total{engine="0",model="starter"} 1.0' in metrics


async def _heard(world: World, *, is_killed: bool) -> tuple[str, str]:
    """Speak with a pause in the middle; return what was understood and the reply."""
    detection = {"type": "server_vad", "threshold": 0.2, "silence_duration_ms": 500}
    audio = {"input": {"turn_detection": detection, "transcription": {"model": "m"}}}
    first = np.concatenate((silence(0.5, 24_000), voice(1.5, 24_000)))
    second = np.concatenate((voice(1.2, 24_000), silence(0.9, 24_000)))
    async with _connect(world) as client:
        await _send(client, "session.update", session={"type": "realtime", "audio": audio})
        await _say(client, "hello")
        assert await _reply(client) == "you said hello"
        await _send(client, "input_audio_buffer.append", audio=base64_pcm(first))
        await _until(client, "input_audio_buffer.speech_started")
        if is_killed:
            # Once the engine has heard some of it.
            await _until(client, "conversation.item.input_audio_transcription.delta")
            world.kill()
            await _until_error(client)
        await _send(client, "input_audio_buffer.append", audio=base64_pcm(second))
        kind = "conversation.item.input_audio_transcription.completed"
        understood = (await _until(client, kind))["transcript"]
        return understood, await _reply(client)


async def test_killed_while_the_user_speaks(tmp_path: Path) -> None:
    """What was said before is heard again: the turn is understood and answered as a whole."""
    async with _world(tmp_path) as world:
        undisturbed = await _heard(world, is_killed=False)
        disturbed = await _heard(world, is_killed=True)
    assert disturbed == undisturbed
    assert undisturbed[1] == f"you said hello, {undisturbed[0]}"
    assert len(undisturbed[0].split()) >= 3, "seconds of both parts"


async def test_killed_during_a_response_out_of_band(tmp_path: Path) -> None:
    """It fails; one that is asked for while nobody is there is made afterwards."""
    async with _world(tmp_path) as world, _connect(world) as client:
        await _say(client, "hello")
        assert await _reply(client) == "you said hello"
        aside = {"conversation": "none", "metadata": {"name": "first"}}
        await _say(client, "be endless", **aside)
        await _until(client, "response.output_audio.delta")
        world.kill()
        done = (await _until(client, "response.done"))["response"]
        assert (done["status"], done["metadata"]) == ("failed", {"name": "first"})
        await _until_error(client)
        content = [{"type": "input_text", "text": "what else"}]
        given = [{"type": "message", "role": "user", "content": content}]
        await _send(client, "response.create", response={"conversation": "none", "input": given})
        assert await _reply(client) == "you said what else"


async def test_a_crash_loop_ends(tmp_path: Path) -> None:
    """Sessions are told and closed, nobody new is let in, and `/readyz` says so."""
    async with _world(tmp_path) as world, _connect(world) as client:
        await _until(client, "session.created")
        world.poison.touch()
        world.kill()
        await _until_error(client)
        assert "not started any more" in (await _until_message(client))
        with pytest.raises(ConnectionClosedError) as closed:
            await client.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1011
        assert await world.until_status("failed") == 503
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{world.served.url}/v1/realtime").__aenter__()
        assert refused.value.response.status_code == 503


async def _until_message(client: ClientConnection) -> str:
    async with asyncio.timeout(TIMEOUT_S):
        event: Event = json.loads(await client.recv())
    assert event["type"] == "error", event
    message: str = event["error"]["message"]
    return message


@pytest.mark.skipif(not (ROOT / "model/starter/config.json").exists(), reason="needs the starter")
async def test_the_starter_knows_what_it_was_told_before_it_was_killed(tmp_path: Path) -> None:
    """The shipped model, configured as shipped, answers from a conversation told anew."""
    settings = load_settings(ROOT / "configs" / "starter.yaml")
    engine = make_engine(settings)
    assert isinstance(engine, ProcessEngine), "that is how it is served"
    async with serving(engine, settings) as served:
        world = World(served, engine, tmp_path)
        async with _connect(world) as client:
            await _say(client, "my name is peter", output_modalities=["text"])
            await _until(client, "response.done")
            world.kill()
            await _until_error(client)
            await _say(client, "what is my name", output_modalities=["text"])
            written = await _until(client, "response.output_text.done")
            assert written["text"] == "your name is peter"


async def test_nobody_is_let_in_while_the_engine_is_away(tmp_path: Path) -> None:
    """Readiness and admission follow the engine; who is in stays in."""
    poison = tmp_path / "poison"
    engine = ProcessEngine(EchoSpec(poison), RestartPolicy(delays_s=(3600.0,)))
    async with serving(engine, Settings()) as served:
        world = World(served, engine, poison)
        async with _connect(world) as client:
            world.kill()
            await _until_error(client)
            assert await world.until_status("restarting") == 503
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"{served.url}/v1/realtime").__aenter__()
            assert refused.value.response.status_code == 503
            await _send(client, "response.create")
            await _until(client, "response.created")
