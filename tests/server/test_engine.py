"""The gateway with the real engine, on a tiny model with random weights."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect

from model.assemble.weights import save_starter
from model.text import Tokenizer
from server.config.models import EngineSettings, ModelSettings
from server.config.settings import Settings
from server.engine import make_engine
from server.errors import ParleyError
from tests.fakes.tiny import make_codec, make_lm
from tests.server.serving import serving
from tests.server.sounds import base64_pcm, silence, voice

TIMEOUT_S = 120.0
Event = dict[str, Any]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Write weights that make noise."""
    directory = tmp_path_factory.mktemp("weights") / "starter"
    lm, codec = make_lm(), make_codec()
    tokenizer = Tokenizer.train(["hello there", "hello world"] * 9, 60)
    save_starter(directory, lm=lm, codec=codec, tokenizer=tokenizer, voices=("anna", "ben"))
    return Settings(model=ModelSettings(dir=directory), engine=EngineSettings(placement="thread"))


async def _until(client: ClientConnection, kind: str) -> list[Event]:
    events: list[Event] = []
    async with asyncio.timeout(TIMEOUT_S):
        while not events or events[-1]["type"] != kind:
            events.append(json.loads(await client.recv()))
            assert events[-1]["type"] != "error", events[-1]
    return events


async def _send(client: ClientConnection, kind: str, **event: Any) -> None:
    await client.send(json.dumps({"type": kind, **event}))


@pytest.mark.usefixtures("no_tasks_left")
async def test_a_conversation_with_everything_in_it(settings: Settings) -> None:
    """Typed and spoken turns, a cancelled reply, a truncation, a deletion, other instructions."""
    engine = make_engine(settings)
    async with (
        serving(engine, settings) as served,
        connect(f"{served.url}/v1/realtime?model=starter") as client,
    ):
        session = {
            "type": "realtime",
            "max_output_tokens": 12,
            "audio": {
                "input": {"turn_detection": None, "transcription": {"model": "m"}},
                "output": {"voice": "ben"},
            },
        }
        await _send(client, "session.update", session=session)
        content = [{"type": "input_text", "text": "hello there"}]
        item = {"id": "typed", "type": "message", "role": "user", "content": content}
        await _send(client, "conversation.item.create", item=item)
        await _send(client, "response.create")
        done = (await _until(client, "response.done"))[-1]["response"]
        assert done["status"] in ("completed", "incomplete")
        assert done["usage"]["output_tokens"] > 0

        await _send(client, "conversation.item.delete", item_id="typed")
        new = {"type": "realtime", "instructions": "Be brief."}
        await _send(client, "session.update", session=new)
        await _send(client, "input_audio_buffer.append", audio=base64_pcm(voice(0.5, 24_000)))
        await _send(client, "input_audio_buffer.commit")
        await _send(client, "response.create", response={"max_output_tokens": 60})
        kind = "conversation.item.input_audio_transcription.completed"
        await _until(client, kind)
        deltas = await _until(client, "response.output_audio_transcript.delta")
        await _send(client, "response.cancel")
        done = (await _until(client, "response.done"))[-1]["response"]
        assert done["status"] == "cancelled"
        item_id = deltas[-1]["item_id"]
        truncation = {"item_id": item_id, "content_index": 0, "audio_end_ms": 0}
        await _send(client, "conversation.item.truncate", **truncation)
        await _until(client, "conversation.item.truncated")
        await _send(client, "response.create", response={"output_modalities": ["text"]})
        done = (await _until(client, "response.done"))[-1]["response"]
        assert done["status"] in ("completed", "incomplete")


@pytest.mark.usefixtures("no_tasks_left")
async def test_a_reply_that_was_begun_in_a_pause_is_taken_back(settings: Settings) -> None:
    """Two turns, each with a pause that is none: two replies, and no trace of the others."""
    spoken = [voice(1.0, 24_000), silence(0.2, 24_000), voice(0.8, 24_000), silence(0.9, 24_000)]
    audio = base64_pcm(np.concatenate((silence(0.5, 24_000), *spoken)))
    engine = make_engine(settings)
    async with (
        serving(engine, settings) as served,
        connect(f"{served.url}/v1/realtime?model=starter") as client,
    ):
        detection = {"type": "server_vad", "threshold": 0.2, "silence_duration_ms": 500}
        session = {
            "type": "realtime",
            "max_output_tokens": 8,
            "audio": {"input": {"turn_detection": detection, "transcription": {"model": "m"}}},
        }
        await _send(client, "session.update", session=session)
        for _ in range(2):
            await _send(client, "input_audio_buffer.append", audio=audio)
            kinds = [event["type"] for event in await _until(client, "response.done")]
            assert kinds.count("input_audio_buffer.committed") == 1
            assert kinds.count("response.created") == 1
            assert kinds.count("conversation.item.input_audio_transcription.completed") == 1


def test_missing_weights_are_a_clear_error(tmp_path: Path) -> None:
    """The message names the folder."""
    model = ModelSettings(dir=tmp_path / "nothing")
    with pytest.raises(ParleyError, match="nothing"):
        make_engine(Settings(model=model, engine=EngineSettings(placement="thread")))
