"""Random twins behind the real server, over a real WebSocket."""

import asyncio
import base64
import json
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect

from model.assemble.twin import NOTE, WORDS
from server.config.load import load_settings
from server.engine import make_engine
from tests.server.serving import Served, serving

ROOT = Path(__file__).parents[2]
QUESTION = ROOT / "tests" / "assets" / "my_name_is_peter.wav"
Event = dict[str, Any]


@asynccontextmanager
async def served(kind: str) -> AsyncIterator[Served]:
    """Serve a twin with the settings that are shipped."""
    config = ROOT / "configs" / f"{kind}-tiny.yaml"
    settings = load_settings(config, ["engine.placement=thread"], env={})
    async with serving(make_engine(settings), settings) as server:
        yield server


async def send(socket: ClientConnection, kind: str, **fields: Any) -> None:
    """Send an event."""
    await socket.send(json.dumps({"type": kind, **fields}))


async def speak(socket: ClientConnection) -> None:
    """Send a spoken sentence and a second of silence, all at once."""
    with wave.open(str(QUESTION)) as file:
        pcm = file.readframes(file.getnframes()) + bytes(48_000)
    await send(socket, "input_audio_buffer.append", audio=base64.b64encode(pcm).decode())


async def until(socket: ClientConnection, kind: str) -> list[Event]:
    """Receive up to the first event of a kind."""
    events: list[Event] = []
    async with asyncio.timeout(30):
        while not events or events[-1]["type"] != kind:
            events.append(json.loads(await socket.recv()))
    return events


def transcript(events: list[Event]) -> str:
    """Return the words of a response."""
    kind = "response.output_audio_transcript.delta"
    return "".join(event["delta"] for event in events if event["type"] == kind)


@pytest.mark.parametrize("kind", ["moshi", "personaplex", "hibiki"])
async def test_push_to_talk(kind: str) -> None:
    """Everything at once, a commit, and the answer to it; then it is cut short and truncated."""
    async with served(kind) as server, connect(f"{server.url}/v1/realtime?model={kind}") as socket:
        session = {"type": "realtime", "instructions": "be kind"}
        audio = {"input": {"turn_detection": None}}
        await send(socket, "session.update", session={**session, "audio": audio})
        await speak(socket)
        await send(socket, "input_audio_buffer.commit")
        await send(socket, "response.create")
        events = await until(socket, "response.output_audio.delta")
        assert "error" not in {event["type"] for event in events}
        while "random" not in transcript(events):
            events += await until(socket, "response.output_audio.delta")
        assert WORDS.startswith(transcript(events))
        delta = base64.b64decode(events[-1]["delta"])
        assert np.abs(np.frombuffer(delta, np.int16)).max() > 500
        item_id = events[-1]["item_id"]
        await send(
            socket,
            "conversation.item.truncate",
            item_id=item_id,
            content_index=0,
            audio_end_ms=400,
        )
        events = await until(socket, "conversation.item.truncated")
        done = next(event for event in events if event["type"] == "response.done")
        assert done["response"]["status"] == "cancelled"
        await send(socket, "conversation.item.retrieve", item_id=item_id)
        (*_, retrieved) = await until(socket, "conversation.item.retrieved")
        assert retrieved["item"]["content"][0]["transcript"] == "i am"


async def test_a_spoken_turn() -> None:
    """Voice detection tells of the turn, and the model answers by itself."""
    async with served("moshi") as server, connect(f"{server.url}/v1/realtime?model=m") as socket:
        await speak(socket)
        events = await until(socket, "response.created")
        events += await until(socket, "response.output_audio.delta")
        kinds = [event["type"] for event in events]
        for kind in ("speech_started", "speech_stopped", "committed"):
            assert f"input_audio_buffer.{kind}" in kinds


async def test_a_twin_says_what_it_is() -> None:
    """Where models are listed."""
    async with served("moshi") as server:
        _, listed = await server.get("/v1/models")
        assert listed["data"][0]["id"] == "moshi-tiny"
        assert listed["data"][0]["description"] == NOTE


async def test_no_transcription_sessions() -> None:
    """A model that does not write down what it hears refuses them at once."""
    async with served("moshi") as server:
        url = f"{server.url}/v1/realtime?intent=transcription"
        async with connect(url) as socket:
            error = json.loads(await socket.recv())["error"]
            assert error["code"] == "invalid_intent"
            await socket.wait_closed()
            assert socket.close_code == 4000
