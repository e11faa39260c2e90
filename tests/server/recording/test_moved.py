"""The recording of a session whose engine is lost has both engines, and can be done again."""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from model.engine.log import read_log
from model.engine.process import ProcessEngine
from model.messages import Open
from server.cli import main
from server.config.load import load_settings
from server.engine import make_engines
from tests.server.recording.test_served import recordings
from tests.server.serving import serving

TIMEOUT_S = 120.0
CONFIG = """
recordings: {{enabled: true, dir: {folder}/kept}}
webrtc: {{enabled: false}}
models:
  model: {{{model}, engine: {{devices: [cpu, cpu], max_sessions: 2, num_threads: 1}}}}
"""
SCRIPT = r"""
reply:
  - when: {user: hello}
    say: this is a long story that goes on and on until somebody has heard enough of it
  - when: {user: 'what is my name', history: '^(?s:.*)user: my name is (?P<name>[a-z]+)'}
    say: your name is {name}
  - say: nice to meet you
"""
Event = dict[str, Any]


async def _until(client: ClientConnection, kind: str) -> Event:
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            event: Event = json.loads(await client.recv())
            if event["type"] == kind:
                return event


async def _ask(client: ClientConnection, text: str, **response: Any) -> None:
    content = [{"type": "input_text", "text": text}]
    item = {"type": "message", "role": "user", "content": content}
    await client.send(json.dumps({"type": "conversation.item.create", "item": item}))
    await client.send(json.dumps({"type": "response.create", "response": response}))


@pytest.mark.parametrize(
    "model",
    [
        "script: {folder}/script.yaml",
        pytest.param("dir: model/starter", marks=pytest.mark.slow),
    ],
    ids=["script", "starter"],
)
async def test_a_session_that_moved_is_done_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str
) -> None:
    """Both engines are in the log, the second told anew; replay does the one, then the other."""
    config = tmp_path / "server.yaml"
    config.write_text(CONFIG.format(folder=tmp_path, model=model.format(folder=tmp_path)))
    (tmp_path / "script.yaml").write_text(SCRIPT)
    settings = load_settings(config, (), {})
    engines = make_engines(settings)
    async with (
        serving(engines, settings) as served,
        connect(f"{served.url}/v1/realtime", max_queue=None) as client,
    ):
        session = {"type": "realtime", "recording": {"consent": True}}
        await client.send(json.dumps({"type": "session.update", "session": session}))
        await _ask(client, "my name is peter", output_modalities=["text"])
        await _until(client, "response.done")
        await _ask(client, "hello")
        await _until(client, "response.output_audio.delta")
        (number,) = (n for n, link in enumerate(served.pool.links) if link.num_sessions)
        lost = engines["model"][number]
        assert isinstance(lost, ProcessEngine)
        assert lost.process_id is not None
        os.kill(lost.process_id, signal.SIGKILL)
        await _until(client, "error")
        await _ask(client, "what is my name", output_modalities=["text"])
        assert (await _until(client, "response.output_text.done"))["text"] == "your name is peter"
        await _until(client, "response.done")
        assert served.pool.num_moves == 1
    (folder,) = recordings(tmp_path / "kept")
    entries = read_log(folder / "engine.log").entries
    assert sum(isinstance(entry, Open) for entry in entries) >= 2
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert "engine_failed" in {line["event"].get("error", {}).get("code") for line in lines}
    capsys.readouterr()
    code = await asyncio.to_thread(main, ["replay", str(folder), "--config", str(config), "--json"])
    report = json.loads(capsys.readouterr().out)
    assert (code, report["is_same"], report["difference"]) == (0, True, None), report
    assert report["sessions"] == 2
