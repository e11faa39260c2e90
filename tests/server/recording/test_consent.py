"""Nothing is recorded without consent, and what is recorded is what was heard and said."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from model.engine.log import read_log
from model.engine.replay import Replay, ReplayClock
from model.files.sound import read_sound
from model.messages import Open, StepNoted
from server.audio.silero import SileroModel
from server.config.records import RecordingSettings
from server.protocol.settings.config import SessionConfig
from server.recording.recorder import Recorder
from server.recording.witness import SessionRecording
from server.session.counts import Counts
from server.session.witness import Witness
from tests.server.session.virtual import Time, Virtual, scripted, virtually
from tests.server.sounds import silence

ASSETS = Path(__file__).resolve().parents[2] / "assets"
RATE_HZ = 24_000
SCRIPT = """
hear:
  - hello there
  - stop it
reply:
  - when: { user: hello }
    say: this is a long story about a fox and a hen and a goose and all of their many friends
  - say: as you like
"""
OFFERED: dict[str, Any] = {"recording": "offered"}


def spoken() -> np.ndarray:
    """Return a turn of the user."""
    question = read_sound(ASSETS / "two_plus_two.wav", RATE_HZ)
    return np.concatenate((question, silence(0.8, RATE_HZ)))


@pytest.fixture(scope="module")
def vad_model() -> SileroModel:
    """Load the voice detector once."""
    return SileroModel()


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    """Return what writes recordings."""
    return Recorder(RecordingSettings(enabled=True, dir=tmp_path), Counts(), lambda: {"m": {}})


def watched(recorder: Recorder, *, is_played: bool = False) -> Any:
    """Return what makes the session's witness."""

    def witnesses(config: SessionConfig) -> Sequence[Witness]:
        return [
            SessionRecording(recorder, config, RATE_HZ, model="m", is_played=is_played, about={})
        ]

    return witnesses


async def consent(virtual: Virtual, given: bool) -> None:
    """Say whether the session may be recorded."""
    session = {"type": "realtime", "recording": {"consent": given}}
    await virtual.send("session.update", session=session)


def folders(recorder: Recorder, folder: Path) -> list[Path]:
    """Let everything be written; returns the recordings."""
    recorder.close()
    return sorted(each for each in folder.iterdir() if "_" in each.name)


def events(folder: Path) -> list[tuple[int, str, dict[str, Any]]]:
    """Return the timeline of a recording."""
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [(line["at_ms"], line["from"], line["event"]) for line in lines]


def stretches(channel: np.ndarray, gap_s: float = 0.5) -> list[tuple[float, float]]:
    """Return where there is sound, in seconds; short gaps do not count."""
    loud = np.flatnonzero(np.abs(channel) > 0.003) / RATE_HZ
    if not len(loud):
        return []
    breaks = np.flatnonzero(np.diff(loud) > gap_s)
    starts = [loud[0], *loud[breaks + 1]]
    ends = [*loud[breaks], loud[-1]]
    return [(float(a), float(b)) for a, b in zip(starts, ends, strict=True)]


async def test_nothing_is_kept_of_a_session_without_consent(
    vad_model: SileroModel, recorder: Recorder, tmp_path: Path
) -> None:
    """Not a line."""
    make = watched(recorder)
    async with virtually(vad_model, _core, witnesses=make, **OFFERED) as virtual:
        await virtual.say(spoken())
        await virtual.wait(1.0)
        await consent(virtual, given=False)
        await virtual.type("hello")
        assert "recording" not in virtual.one("session.created")["session"]
    assert folders(recorder, tmp_path) == []


async def test_consent_cannot_be_given_where_nothing_is_recorded(vad_model: SileroModel) -> None:
    """A client must not believe that it is."""
    async with virtually(vad_model, _core) as virtual:
        await consent(virtual, given=True)
        error = virtual.one("error")["error"]
        assert (error["code"], error["param"]) == ("recording_not_offered", "session.recording")
        for wrong in ({}, {"consent": "yes"}, {"consent": True, "for": "ever"}, True):
            await virtual.send("session.update", session={"type": "realtime", "recording": wrong})
        assert len(virtual.all("error")) == 5


def _core(time: Time) -> Any:  # Any: a core of the engine
    return scripted(SCRIPT, time)


async def _interrupted(virtual: Virtual) -> float:
    """Ask, and talk over the reply after two seconds of it; returns when it was heard."""
    await virtual.say(spoken())
    await virtual.wait(2.0)
    if virtual.played:
        began_s = virtual.played[0][0]
    else:
        began_s = 100.0 + virtual.when("response.output_audio.delta")
    await virtual.say(spoken())
    await virtual.wait(6.0)
    return began_s


@pytest.mark.parametrize("is_played", [False, True])
async def test_both_sides_are_aligned_and_the_reply_ends_where_it_was_cut(
    vad_model: SileroModel, recorder: Recorder, tmp_path: Path, is_played: bool
) -> None:
    """Over a WebSocket, where the client says what it played, and where the server plays."""
    make = watched(recorder, is_played=is_played)
    async with virtually(
        vad_model, _core, is_played=is_played, witnesses=make, **OFFERED
    ) as virtual:
        await virtual.wait(1.0)
        await consent(virtual, given=True)
        assert virtual.all("session.updated")[-1]["session"]["recording"] == {"consent": True}
        began_s = await _interrupted(virtual)
        start_s = 101.0
        cut = virtual.all("conversation.item.truncated")
        played = virtual.played
    (folder,) = folders(recorder, tmp_path)
    sound, rate_hz = soundfile.read(folder / "audio.flac")
    assert rate_hz == RATE_HZ
    user, assistant = stretches(sound[:, 0]), stretches(sound[:, 1])
    assert len(user) == 2, "two turns"
    assert user[0][0] < 0.5
    assert assistant[0][0] == pytest.approx(began_s - start_s, abs=0.05)
    assert user[1][0] < assistant[0][1] < user[1][1], "it was cut while the user spoke"
    assert assistant[1][0] > user[1][1], "the next reply follows the second turn"
    if is_played:
        assert cut, "the server says what was heard"
        # To the sample: what was played is what is on the track.
        for at_s, pcm in played[:200]:
            place = round((at_s - start_s) * RATE_HZ)
            expected = np.rint(np.clip(pcm, -1, 1) * 32767) / 32768
            assert np.allclose(sound[place : place + len(pcm), 1], expected, atol=1e-6)
    kinds = [event["type"] for _, _, event in events(folder)]
    assert "input_audio_buffer.speech_started" in kinds
    assert "input_audio_buffer.append" not in kinds
    at = [at_ms for at_ms, _, _ in events(folder)]
    assert at == sorted(at)


async def test_a_client_that_heard_less_says_so(
    vad_model: SileroModel, recorder: Recorder, tmp_path: Path
) -> None:
    """Its word stands, although the sound was there."""
    async with virtually(vad_model, _core, witnesses=watched(recorder), **OFFERED) as virtual:
        await consent(virtual, given=True)
        await virtual.say(spoken())
        while "response.output_audio.delta" not in virtual.kinds():
            await virtual.wait(0.1)
        item_id = virtual.all("response.output_audio.delta")[0]["item_id"]
        await virtual.wait(2.0)
        await virtual.send("response.cancel")
        await virtual.send(
            "conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=700
        )
        await virtual.wait(5.0)
    (folder,) = folders(recorder, tmp_path)
    sound, _ = soundfile.read(folder / "audio.flac")
    loud = np.flatnonzero(sound[:, 1])
    assert (loud[-1] - loud[0]) / RATE_HZ == pytest.approx(0.7, abs=0.1)


async def test_consent_can_be_taken_back_and_given_again(
    vad_model: SileroModel, recorder: Recorder, tmp_path: Path
) -> None:
    """Two recordings, and nothing of what lies between."""
    async with virtually(vad_model, _core, witnesses=watched(recorder), **OFFERED) as virtual:
        for given, text in ((True, "hello"), (False, "a secret"), (True, "goodbye")):
            await consent(virtual, given=given)
            assert virtual.all("session.updated")[-1]["session"]["recording"] == {"consent": given}
            await virtual.type(text)
            await virtual.send("response.create", response={"output_modalities": ["text"]})
            await virtual.wait(12.0)
    first, second = folders(recorder, tmp_path)
    assert json.loads((first / "recording.json").read_text())["ended"] == "consent withdrawn"
    everything = b"".join(
        file.read_bytes() for folder in (first, second) for file in folder.iterdir()
    )
    assert b"hello" in everything
    assert b"goodbye" in everything
    assert b"a secret" not in (first / "events.jsonl").read_bytes()
    assert b"a secret" not in (second / "events.jsonl").read_bytes()
    for folder in (first, second):
        clock = ReplayClock()
        core = scripted(SCRIPT, clock)  # type: ignore[arg-type]  # a clock too
        assert Replay(core, clock).run(read_log(folder / "engine.log").entries).difference is None


async def test_a_session_may_begin_with_consent(
    vad_model: SileroModel, recorder: Recorder, tmp_path: Path
) -> None:
    """An ephemeral key, or the offer of a call, can have it: the engine is told from the start."""
    async with virtually(
        vad_model, _core, witnesses=watched(recorder), recording="given"
    ) as virtual:
        assert virtual.one("session.created")["session"]["recording"] == {"consent": True}
        await virtual.say(spoken())
        await virtual.wait(3.0)
    (folder,) = folders(recorder, tmp_path)
    entries = read_log(folder / "engine.log").entries
    assert isinstance(entries[0], Open)
    assert any(isinstance(entry, StepNoted) for entry in entries)
    kinds = [event["type"] for _, _, event in events(folder)]
    assert kinds[0] == "session.created"


async def test_secrets_and_data_are_not_on_the_timeline(
    vad_model: SileroModel, recorder: Recorder, tmp_path: Path
) -> None:
    """Tokens for tools, and sound and pictures that were sent in items."""
    async with virtually(
        vad_model, _core, witnesses=watched(recorder), recording="given"
    ) as virtual:
        tool = {
            "type": "mcp",
            "server_label": "shop",
            "server_url": "https://shop.example",
            "authorization": "token-of-somebody",
            "headers": {"x-key": "key-of-somebody"},
        }
        await virtual.send("session.update", session={"type": "realtime", "tools": [tool]})
        content = [{"type": "input_audio", "audio": "QUJD" * 3000}]
        item = {"type": "message", "role": "user", "content": content}
        await virtual.send("conversation.item.create", item=item)
        await virtual.wait(0.5)
    (folder,) = folders(recorder, tmp_path)
    text = (folder / "events.jsonl").read_text()
    assert "session.update" in text
    for secret in ("token-of-somebody", "key-of-somebody", "QUJDQUJD"):
        assert secret not in text


async def test_a_recording_ends_after_so_many_minutes(
    vad_model: SileroModel, tmp_path: Path
) -> None:
    """The call goes on."""
    made = RecordingSettings(enabled=True, dir=tmp_path, max_minutes=0.05)
    recorder = Recorder(made, Counts(), lambda: {"m": {}})
    async with virtually(
        vad_model, _core, witnesses=watched(recorder), recording="given"
    ) as virtual:
        await virtual.say(spoken())
        await virtual.wait(8.0)
        assert "response.done" in virtual.kinds()
    (folder,) = folders(recorder, tmp_path)
    assert soundfile.info(folder / "audio.flac").duration == pytest.approx(3.0, abs=0.001)
