"""A whole server records whose client consents, by an update or by an ephemeral key."""

import asyncio
import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from model.engine.log import read_log
from model.messages import AppendText, Open
from server.config.records import RecordingSettings
from server.config.server import ServerSettings
from server.config.settings import Settings
from server.errors import ConfigError
from tests.server.client.realtime import talked
from tests.server.fakes import EchoEngine
from tests.server.serving import Served, serving

KEY = "an-api-key-of-some-length"


def recordings(folder: Path) -> list[Path]:
    """Return the recordings of a folder."""
    return sorted(each for each in folder.iterdir() if "_" in each.name)


async def test_who_consents_is_recorded_and_who_does_not_is_not(tmp_path: Path) -> None:
    """Each session decides for itself."""
    settings = Settings(recordings=RecordingSettings(enabled=True, dir=tmp_path))
    async with serving(EchoEngine(), settings) as served:
        for session in (None, {"recording": {"consent": True}}, {"recording": {"consent": False}}):
            assert await talked(served.url, session) == "completed"
        assert "parley_recordings_total 1.0" in (await served.get("/metrics"))[1]
    (folder,) = recordings(tmp_path)
    about = json.loads((folder / "recording.json").read_text())
    assert (about["is_complete"], about["transport"], about["kind"]) == (
        True,
        "websocket",
        "realtime",
    )
    header = read_log(folder / "engine.log").header
    assert header["kind"] == "weights"
    assert len(header["files"]["lm.safetensors"]) == 64


def made_key(served: Served, session: dict[str, Any]) -> str:
    """Make an ephemeral key."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{served.port}/v1/realtime/client_secrets",
        json.dumps({"session": session}).encode(),
        {"Authorization": f"Bearer {KEY}"},
    )
    with urllib.request.urlopen(request) as response:  # noqa: S310 - the same
        answer = json.load(response)
    assert answer["session"].get("recording") == session.get("recording")
    return str(answer["value"])


async def test_an_ephemeral_key_may_consent(tmp_path: Path) -> None:
    """The backend has asked the person; the engine is told from the first command on."""
    settings = Settings(
        server=ServerSettings(api_keys=(KEY,)),
        recordings=RecordingSettings(enabled=True, dir=tmp_path),
    )
    async with serving(EchoEngine(), settings) as served:
        session = {"type": "realtime", "recording": {"consent": True}}
        key = await asyncio.to_thread(made_key, served, session)
        assert await talked(served.url, authorization=f"Bearer {key}") == "completed"
    (folder,) = recordings(tmp_path)
    first, *others = read_log(folder / "engine.log").entries
    assert isinstance(first, Open)
    assert first.is_noted
    assert any(isinstance(entry, AppendText) and entry.text == "hi" for entry in others)


def test_a_folder_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    """And not at the first recording."""
    from server.app import create_app  # noqa: PLC0415 - of this test alone

    file = tmp_path / "file"
    file.write_text("no folder")
    settings = Settings(recordings=RecordingSettings(enabled=True, dir=file))
    with pytest.raises(ConfigError, match=r"recordings\.dir: cannot be written"):
        create_app(settings, {settings.model.name: [EchoEngine()]})
