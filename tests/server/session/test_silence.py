"""Silence is nobody's word, however it becomes a turn."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from model.messages import AppendText, CommitAudio
from server.audio.silero import SileroModel
from server.protocol.settings.config import ServerVad, Transcription, TurnDetection
from tests.server.session.test_features import question
from tests.server.session.virtual import WIRE_HZ, Samples, Time, Virtual, scripted, virtually
from tests.server.sounds import base64_pcm

SCRIPT = """
hear: [{text: what nobody said, repeat: true}]
reply:
  - when: {user: ^$}
    say: are you there
  - say: an answer to {last_user}
"""
COMPLETED = "conversation.item.input_audio_transcription.completed"
DELTA = "conversation.item.input_audio_transcription.delta"


@pytest.fixture(scope="module")
def vad_model() -> SileroModel:
    """Load the model once."""
    return SileroModel()


def _core(time: Time) -> Any:  # Any: a core of the engine
    return scripted(SCRIPT, time)


def _hiss(seconds: float, level_db: float) -> Samples:
    noise = np.random.default_rng(3).standard_normal(int(seconds * WIRE_HZ))
    return (noise * 10 ** (level_db / 20)).astype(np.float32)


def _hum(seconds: float, level_db: float) -> Samples:
    time_s = np.arange(int(seconds * WIRE_HZ)) / WIRE_HZ
    return (np.sin(2 * np.pi * 50 * time_s) * 10 ** (level_db / 20)).astype(np.float32)


def _nothing(seconds: float, level_db: float) -> Samples:
    del level_db
    return np.zeros(int(seconds * WIRE_HZ), dtype=np.float32)


async def _answered(live: Virtual) -> str:
    await live.wait(4.0, step_s=0.1)
    said: str = live.all("response.output_audio_transcript.done")[-1]["transcript"]
    return said


@pytest.mark.parametrize("detection", [None, ServerVad()])
@pytest.mark.parametrize("seconds", [0.15, 1.0, 8.0])
@pytest.mark.parametrize("sound", [_nothing, _hiss, _hum])
@pytest.mark.parametrize("level_db", [-60, -30, -20])
async def test_committed_by_hand(
    vad_model: SileroModel,
    detection: TurnDetection | None,
    seconds: float,
    sound: Callable[[float, float], Samples],
    level_db: float,
) -> None:
    """No words, no deltas; the response answers a turn without words."""
    async with virtually(
        vad_model, _core, turn_detection=detection, transcription=Transcription({"model": "m"})
    ) as live:
        await live.say(sound(seconds, level_db), piece_s=0.5, pace=0)
        await live.send("input_audio_buffer.commit")
        assert live.one(COMPLETED)["transcript"] == ""
        assert not live.all(DELTA)
        await live.send("response.create")
        assert await _answered(live) == "are you there"
        assert not [c for c in live.engine.commands if isinstance(c, CommitAudio)]


async def test_late_after_a_real_turn(vad_model: SileroModel) -> None:
    """What follows a question is not the question again."""
    async with virtually(
        vad_model, _core, turn_detection=ServerVad(), transcription=Transcription({"model": "m"})
    ) as live:
        await live.say(question(1.0))
        assert await _answered(live) == "an answer to what nobody said"
        await live.say(_hiss(2.0, -40))
        await live.send("input_audio_buffer.commit")
        assert [event["transcript"] for event in live.all(COMPLETED)] == ["what nobody said", ""]
        await live.send("response.create")
        assert await _answered(live) == "are you there"


async def test_an_item_of_silence(vad_model: SileroModel) -> None:
    """It is a turn without words as well."""
    async with virtually(vad_model, _core) as live:
        content = [{"type": "input_audio", "audio": base64_pcm(_hiss(1.0, -40))}]
        item = {"type": "message", "role": "user", "content": content}
        await live.send("conversation.item.create", item=item)
        await live.send("response.create")
        assert await _answered(live) == "are you there"


async def test_an_item_with_sound_and_words_is_remembered_once(vad_model: SileroModel) -> None:
    """By its words; the sound can be retrieved."""
    async with virtually(vad_model, _core) as live:
        sound = {"type": "input_audio", "audio": base64_pcm(question(0.1)), "transcript": "hello"}
        item = {"id": "mine", "type": "message", "role": "user", "content": [sound]}
        await live.send("conversation.item.create", item=item)
        await live.send("response.create")
        assert await _answered(live) == "an answer to hello"
        told = [c for c in live.engine.commands if isinstance(c, AppendText | CommitAudio)]
        assert told == [AppendText("sess_1", "mine", "user", "hello")]
        await live.send("conversation.item.retrieve", item_id="mine")
        (part,) = live.one("conversation.item.retrieved")["item"]["content"]
        assert part["transcript"] == "hello"
        assert part["audio"]


@pytest.mark.parametrize("gain_db", [0, -10, -20, -30])
@pytest.mark.parametrize("detection", [None, ServerVad(silence_duration_ms=3_000)])
async def test_quiet_speech_is_heard(
    vad_model: SileroModel, detection: TurnDetection | None, gain_db: float
) -> None:
    """What somebody says is theirs, also at a thirtieth of the usual level."""
    async with virtually(
        vad_model, _core, turn_detection=detection, transcription=Transcription({"model": "m"})
    ) as live:
        await live.say(question(0.1) * np.float32(10 ** (gain_db / 20)), piece_s=0, pace=0)
        await live.send("input_audio_buffer.commit")
        assert live.one(COMPLETED)["transcript"] == "what nobody said"
