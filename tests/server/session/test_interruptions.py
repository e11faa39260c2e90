"""Who may end a reply, and who may not: in virtual time, beside a loudspeaker, to the event."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.files.sound import read_sound
from server.audio.silero import SileroModel
from server.audio.wire import AudioDecoder, AudioEncoder
from server.config.sound import VadSettings
from server.protocol.settings.config import (
    AudioFormat,
    Encoding,
    SemanticVad,
    ServerVad,
    TurnDetection,
)
from tests.server.session.pairs import covering
from tests.server.session.virtual import (
    WIRE_HZ,
    Samples,
    Time,
    Virtual,
    scripted,
    virtually,
)

ASSETS = Path(__file__).resolve().parents[2] / "assets"
SCRIPT = """
hear: [what is two plus two, and three plus three]
reply:
  - when: {user: three}
    say: that is six
  - say: >
      two plus two is four and this goes on for so long that one can cough and hum and say many
      other things before it is over and then a little more
"""
STARTED = "input_audio_buffer.speech_started"
STOPPED = "input_audio_buffer.speech_stopped"
DELTA, DONE = "response.output_audio.delta", "response.done"
FRAME_MS = 20
PIECE = WIRE_HZ * FRAME_MS // 1000

DETECTIONS: Mapping[str, TurnDetection] = {
    "server_vad": ServerVad(silence_duration_ms=500),
    "semantic_vad": SemanticVad("auto"),
}
NOISE_REDUCTIONS: Mapping[str, dict[str, Any] | None] = {
    "none": None,
    "near": {"type": "near_field"},
    "far, half": {"type": "far_field", "strength": 0.5},
}
FEATURES: Mapping[str, tuple[Any, ...]] = {
    "is_played": (False, True),
    "has_echo": (True, False),
    "noise": tuple(NOISE_REDUCTIONS),
    "detection": tuple(DETECTIONS),
    "is_early": (True, False),
    "interrupts": (True, False),
    "encoding": ("audio/pcm", "audio/pcmu", "audio/pcma"),
    "speed": (1.0, 1.25, 0.8),
}


@pytest.fixture(scope="module")
def vad_model() -> SileroModel:
    """Load the model once."""
    return SileroModel()


def _core(time: Time) -> Any:  # Any: a core of the engine
    return scripted(SCRIPT, time)


def _question(seconds: float = 1.4) -> Samples:
    return read_sound(ASSETS / "two_plus_two.wav", WIRE_HZ)[: int(seconds * WIRE_HZ)]


def _silence(seconds: float) -> Samples:
    return np.zeros(int(seconds * WIRE_HZ), np.float32)


def _mhm() -> Samples:
    """Say something for 280 ms, as loud as the question."""
    return _question()[WIRE_HZ // 5 : WIRE_HZ * 48 // 100]


class Room:
    """A microphone beside the loudspeaker that plays what the session says.

    Args:
        live: the session.
        level: of the echo, against what is played; 0 for a headset.
        delay_s: of the echo.
        output: how the session's audio is encoded.
    """

    def __init__(
        self, live: Virtual, level: float, output: AudioFormat, delay_s: float = 0.12
    ) -> None:
        self.live = live
        self._level = level
        self._delay_s = delay_s
        self._decoder = AudioDecoder(output.encoding, output.rate_hz, WIRE_HZ)
        given = live.format
        self._encoder = AudioEncoder(given.encoding, given.rate_hz, WIRE_HZ)
        self._air = _silence(60.0)  # what the loudspeaker sounds like, from the start
        self._end_s = 0.0
        self._num_events = self._num_played = 0
        self._noise = np.random.default_rng(3)

    async def hear(self, said: Samples) -> None:
        """Let time pass in which the user says something."""
        for start in range(0, len(said), PIECE):
            piece = said[start : start + PIECE]
            now_s = self.live.time.now_s - 100.0
            self._play()
            begin = int((now_s - self._delay_s) * WIRE_HZ)
            echo = self._air[max(begin, 0) : max(begin + len(piece), 0)]
            near = piece + 0.0003 * self._noise.standard_normal(len(piece)).astype(np.float32)
            near[len(piece) - len(echo) :] += self._level * echo
            if self.live.sender is None:
                self.live.advance(len(piece) / WIRE_HZ)
                audio = base64.b64encode(self._encoder.encode(near)).decode()
                await self.live.send("input_audio_buffer.append", audio=audio)
            else:
                await self.live.wait(len(piece) / WIRE_HZ)
                self.live.session.hear(near)
                await self.live.settle()

    def _play(self) -> None:
        """Let the loudspeaker sound with what has come, as a client does."""
        for at_s, event in self.live.events[self._num_events :]:
            if event["type"] == DELTA:
                pcm = self._decoder.decode(base64.b64decode(event["delta"]))
                self._sound(pcm, max(at_s - 100.0, self._end_s))
            elif event["type"] == STARTED:
                # Clients fall silent.
                self._air[int((at_s - 100.0) * WIRE_HZ) :] = 0
                self._end_s = at_s - 100.0
        self._num_events = len(self.live.events)
        for at_s, pcm in self.live.played[self._num_played :]:
            self._sound(pcm, at_s - 100.0)
        self._num_played = len(self.live.played)

    def _sound(self, pcm: Samples, at_s: float) -> None:
        start = round(at_s * WIRE_HZ)
        self._air[start : start + len(pcm)] = pcm
        self._end_s = (start + len(pcm)) / WIRE_HZ


async def _configure(
    live: Virtual, detection: TurnDetection, *, interrupts: bool, **audio: Any
) -> None:
    turn_detection = {**detection.to_json(), "interrupt_response": interrupts}
    given = {"turn_detection": turn_detection, "transcription": {"model": "m"}, **audio}
    output = {"speed": audio.pop("speed", 1.0), "format": audio.pop("output", None)}
    given = {key: value for key, value in given.items() if key not in ("speed", "output")}
    if output["format"] is None:
        del output["format"]
    await live.send(
        "session.update", session={"type": "realtime", "audio": {"input": given, "output": output}}
    )
    assert not live.all("error")


@pytest.mark.parametrize(tuple(FEATURES), list(covering(FEATURES)))
async def test_any_two_features_work_together(
    vad_model: SileroModel,
    *,
    is_played: bool,
    has_echo: bool,
    noise: str,
    detection: str,
    is_early: bool,
    interrupts: bool,
    encoding: Encoding,
    speed: float,
) -> None:
    """A question is answered; a "mhm" does not end the answer, and a question does."""
    audio_format = AudioFormat(encoding)
    vad = VadSettings() if is_early else VadSettings(speculate_after_ms=0)
    async with virtually(
        vad_model,
        _core,
        vad=vad,
        cancels_echo=True,
        is_played=is_played,
        input_format=audio_format,
        output_format=audio_format,
    ) as live:
        await _configure(
            live,
            DETECTIONS[detection],
            interrupts=interrupts,
            noise_reduction=NOISE_REDUCTIONS[noise],
            speed=speed,
        )
        room = Room(live, 0.4 if has_echo else 0.0, audio_format)
        await room.hear(np.concatenate((_question(), _silence(1.0))))
        heard = live.one("conversation.item.input_audio_transcription.completed")
        assert heard["transcript"] == "what is two plus two"
        assert live.one(STARTED)["audio_start_ms"] <= 32

        await room.hear(_silence(1.5))
        assert len(live.all(STARTED)) == 1, "an echo is nobody's speech"
        await room.hear(np.concatenate((_mhm(), _silence(1.0))))
        assert not live.all(DONE), "the reply goes on"
        # Where speech does not interrupt, it is told of and nothing follows but an answer.
        assert len(live.all(STARTED)) == (1 if interrupts else 2)
        if interrupts:
            await room.hear(np.concatenate((_question(), _silence(1.5))))
            first = live.all(DONE)[0]["response"]
            assert first["status"] == "cancelled"
            assert first["status_details"]["reason"] == "turn_detected"
            assert len(live.all(STARTED)) == len(live.all(STOPPED)) == 2
            await room.hear(_silence(4.0))
            said = live.all(DONE)[1]["response"]["output"][0]["content"][0]["transcript"]
            assert said == "that is six"
        assert not live.all("error")


async def test_without_cancellation_the_assistant_interrupts_itself(
    vad_model: SileroModel,
) -> None:
    """What the others show: it is the canceller that keeps this from happening."""
    async with virtually(vad_model, _core) as live:
        await _configure(live, ServerVad(silence_duration_ms=500), interrupts=True)
        room = Room(live, 0.4, live.format)
        await room.hear(np.concatenate((_question(), _silence(4.0))))
        assert len(live.all(STARTED)) > 1


async def test_a_false_interruption_resumes_at_the_very_sample(vad_model: SileroModel) -> None:
    """By WebRTC the sound stops within 60 ms of the doubt, and nothing of the reply is lost."""
    async with virtually(vad_model, _core, is_played=True, cancels_echo=True) as live:
        await _configure(live, ServerVad(silence_duration_ms=500), interrupts=True)
        room = Room(live, 0.0, live.format)
        await room.hear(np.concatenate((_question(), _silence(2.0))))
        before = len(live.played)
        begun_s = live.time.now_s
        await room.hear(np.concatenate((_mhm(), _silence(16.0))))
        moments = np.array([at_s for at_s, _ in live.played])
        gaps = np.diff(moments)
        (pause,) = np.flatnonzero(gaps > 0.03)
        assert pause >= before - 1
        # Two windows of speech, up to one more to begin with, and 60 ms.
        assert moments[pause] + 0.02 - begun_s < 0.096 + 0.06
        assert 0.2 < gaps[pause] < 0.7
        made = np.concatenate([pcm for _, pcm in live.played])
        (done,) = live.all(DONE)
        assert done["response"]["status"] == "completed"
        assert len(live.all(STARTED)) == 1
        assert live.all("output_audio_buffer.stopped")
        assert not live.all("output_audio_buffer.cleared")
        # All of it was played: what faded out at the pause was heard again after it.
        item_id = done["response"]["output"][0]["id"]
        await live.send("conversation.item.retrieve", item_id=item_id)
        part = live.one("conversation.item.retrieved")["item"]["content"][0]
        whole = np.frombuffer(base64.b64decode(part["audio"]), np.int16)
        num_faded = 5 * WIRE_HZ // 1000
        extra = WIRE_HZ * FRAME_MS // 1000
        assert 0 <= len(made) - len(whole) <= num_faded + 2 * extra


async def test_an_interruption_truncates_to_where_it_was_suspected(
    vad_model: SileroModel,
) -> None:
    """What was paused was not heard: history ends there, not where it became certain."""
    async with virtually(vad_model, _core, is_played=True, cancels_echo=True) as live:
        await _configure(live, ServerVad(silence_duration_ms=500), interrupts=True)
        room = Room(live, 0.4, live.format)
        await room.hear(np.concatenate((_question(), _silence(2.0))))
        await room.hear(np.concatenate((_question(), _silence(0.3))))
        num_played = sum(len(pcm) for _, pcm in live.played)
        (truncated,) = live.all("conversation.item.truncated")
        heard = truncated["audio_end_ms"] * WIRE_HZ // 1000
        assert 0 <= num_played - heard <= 2 * WIRE_HZ * FRAME_MS // 1000
        kinds = live.kinds()
        last = len(kinds) - 1 - kinds[::-1].index(STARTED)
        cleared = kinds.index("output_audio_buffer.cleared")
        assert last < kinds.index(DONE) < cleared < kinds.index("conversation.item.truncated")


async def test_a_muted_client_is_played_on_to(vad_model: SileroModel) -> None:
    """Who goes silent in the middle of a doubt, without a sound of silence, hears the rest."""
    async with virtually(vad_model, _core, is_played=True, cancels_echo=True) as live:
        await _configure(live, ServerVad(silence_duration_ms=500), interrupts=True)
        room = Room(live, 0.0, live.format)
        await room.hear(np.concatenate((_question(), _silence(2.0), _mhm()[: WIRE_HZ // 5])))
        before = len(live.played)
        await live.wait(0.5)
        assert len(live.played) - before < 5
        live.session._tick()  # the alarm's own clock is another
        await live.wait(2.0)
        live.session._tick()
        await live.wait(2.0)
        assert len(live.played) - before > 50
        assert len(live.all(STARTED)) == 1
