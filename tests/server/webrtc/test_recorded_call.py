"""A call over WebRTC is recorded as it was heard, and can be done again."""

import json
from pathlib import Path

import pytest
import soundfile

from server.cli import main
from server.config.load import load_settings
from server.engine import make_engines
from server.names import ROOT
from server.webrtc.network import Network
from tests.server.recording.test_consent import stretches
from tests.server.recording.test_served import recordings
from tests.server.serving import serving
from tests.server.webrtc.caller import calling, question
from tests.server.webrtc.serving import SCRIPT

SCRIPTED = ROOT / "configs" / "scripted.yaml"


async def test_a_call_is_recorded_as_it_was_heard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Left the user, right what was played: a reply in full, and one that was talked over."""
    script, kept = tmp_path / "script.yaml", tmp_path / "kept"
    script.write_text(SCRIPT.replace("a story", "a story, thanks"))
    changes = (f"model.script={script}", "engine.placement=thread", "webrtc.port=0")
    recorded = ("recordings.enabled=true", f"recordings.dir={kept}")
    settings = load_settings(SCRIPTED, (*changes, *recorded), {})
    network = Network(settings.webrtc, "127.0.0.1", 0)
    async with (
        serving(make_engines(settings), settings, network) as served,
        calling(served) as caller,
    ):
        await caller.until("session.created")
        session = {"type": "realtime", "recording": {"consent": True}}
        caller.send(type="session.update", session=session)
        assert (await caller.until("session.updated"))["session"]["recording"] == {"consent": True}
        caller.microphone.say(question("two_plus_two"))
        await caller.until("output_audio_buffer.stopped")
        caller.microphone.say(question("capital_of_france"))
        await caller.until("output_audio_buffer.stopped")
        caller.microphone.say(question("capital_of_france"))
        await caller.until("output_audio_buffer.started")
        caller.microphone.say(question("my_name_is_peter"))
        heard_ms = (await caller.until("conversation.item.truncated"))["audio_end_ms"]
    (folder,) = recordings(kept)
    about = json.loads((folder / "recording.json").read_text())
    assert (about["transport"], about["is_complete"]) == ("webrtc", True)
    sound, rate_hz = soundfile.read(folder / "audio.flac")
    assert sound.shape[1] == 2
    user, assistant = sound.T
    # Turns and replies lie two seconds apart.
    hello, france, story = stretches(assistant, 1.5)
    (first, _), *_ = stretches(user)
    assert first < hello[0] < france[0] < story[0]
    assert story[1] - story[0] == pytest.approx(heard_ms / 1000, abs=0.1), "as the server says"
    interruption = user[int((story[1] - 0.5) * rate_hz) : int(story[1] * rate_hz)]
    assert stretches(interruption), "the user talked when it was cut"
    capsys.readouterr()
    words = ["--config", str(SCRIPTED), *(word for each in changes for word in ("--set", each))]
    assert main(["replay", str(folder), *words]) == 0
    assert capsys.readouterr().out.endswith("every token is the same\n")
