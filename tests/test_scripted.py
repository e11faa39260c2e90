"""What docs/scripted.md promises is true, over a socket and with the stock client."""

import asyncio
import base64
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection

from model.scripted.script import parse_script
from server.client.local import local_server
from server.config.settings import Settings
from tests.fakes.scripted import scripted_engine
from tests.server.serving import serving

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "scripted.yaml"
_TIMEOUT_S = 60.0


def _blocks(language: str) -> list[str]:
    text = (ROOT / "docs" / "scripted.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def test_the_worked_example_works(tmp_path: Path) -> None:
    """Script, client and output are those of the document."""
    (script,), (program,), (output,) = (_blocks(kind) for kind in ("yaml", "python", "text"))
    path = tmp_path / "script.yaml"
    path.write_text(script)
    with local_server(CONFIG, [f"model.script={path}"]) as url:
        finished = subprocess.run(
            [
                sys.executable,
                "-c",
                program.replace("http://127.0.0.1:8000", url.replace("ws://", "http://")),
            ],
            cwd=ROOT,
            env={**os.environ, "PYTHONSAFEPATH": "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == output


@asynccontextmanager
async def _talking(script: str) -> AsyncIterator[AsyncRealtimeConnection]:
    """Connect with the stock client to a server that follows a script."""
    engine = scripted_engine(parse_script(script, "test"), max_sessions=2, ahead_ms=60_000)
    async with serving(engine, Settings()) as served:
        client = AsyncOpenAI(api_key="any", base_url=served.url.replace("ws://", "http://") + "/v1")
        async with client, client.realtime.connect(model="scripted") as connection:
            yield connection


async def _until(connection: AsyncRealtimeConnection, kind: str) -> list[Any]:
    events: list[Any] = []
    async with asyncio.timeout(_TIMEOUT_S):
        while not events or events[-1].type != kind:
            events.append(await connection.recv())
    return events


async def _type(connection: AsyncRealtimeConnection, text: str) -> Any:
    """Type a turn and return the response that answers it."""
    content = [{"type": "input_text", "text": text}]
    item: Any = {"type": "message", "role": "user", "content": content}
    await connection.conversation.item.create(item=item)
    await connection.response.create()
    return (await _until(connection, "response.done"))[-1].response


async def test_the_scripts_voice_is_heard_as_speech() -> None:
    """What one reply sounds like can be the next turn: found by voice detection, and answered."""
    script = """
    hear: [hello]
    pace: {real_time_factor: 0, first_output_ms: 0}
    reply:
      - {when: {user: '^say$'}, say: once upon a time there was a lighthouse}
      - {say: 'you said {last_user}'}
    """
    async with _talking(script) as connection:
        first = await _type(connection, "say")
        sound = await _sound_of(connection, first.output[0].id)
        await connection.input_audio_buffer.append(
            audio=base64.b64encode(sound + bytes(48_000)).decode()
        )
        kinds = [event.type for event in await _until(connection, "response.done")]
        assert kinds.index("input_audio_buffer.speech_started") < kinds.index(
            "input_audio_buffer.speech_stopped"
        )
        assert (await _type(connection, "x")).output[0].content[0].transcript == "you said x"


async def _sound_of(connection: AsyncRealtimeConnection, item_id: str) -> bytes:
    await connection.conversation.item.retrieve(item_id=item_id)
    item = (await _until(connection, "conversation.item.retrieved"))[-1].item
    return base64.b64decode(item.content[0].audio)


async def test_failures_reach_the_client() -> None:
    """A failed response says why, in the script's words; the session goes on."""
    script = "reply: [{say: oh, fail: the script says so, at_most: 1}, {say: fine}]"
    async with _talking(script) as connection:
        failed = await _type(connection, "hi")
        assert failed.status == "failed"
        assert "the script says so" in failed.status_details.model_dump_json()
        assert (await _type(connection, "hi")).status == "completed"
