"""What is heard in appended audio, and where."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.files.sound import read_sound
from server.audio.silero import SileroModel
from server.audio.wire import AudioEncoder
from server.config.sound import VadSettings
from server.protocol.events import (
    EndInDoubt,
    Heard,
    InputAudio,
    SpeechBegan,
    SpeechEnded,
    SpeechPaused,
    SpeechResumed,
)
from server.protocol.settings.config import (
    AudioFormat,
    Eagerness,
    Encoding,
    SemanticVad,
    ServerVad,
    SessionConfig,
    TurnDetection,
)
from server.protocol.wire.audio import decode_base64
from server.session.ears import Ears
from tests.server.sounds import base64_pcm, silence, voice

ASSETS = Path(__file__).resolve().parents[2] / "assets"
WIRE_HZ = 24_000
SENSITIVE = ServerVad(threshold=0.3, silence_duration_ms=500)


@pytest.fixture(scope="module")
def model() -> SileroModel:
    """Load the model once."""
    return SileroModel()


def _config(
    detection: TurnDetection | None, audio_format: AudioFormat | None = None
) -> SessionConfig:
    return SessionConfig(
        id="s",
        model="m",
        voice="v",
        expires_at=0,
        turn_detection=detection,
        input_format=audio_format or AudioFormat(),
    )


def _ears(
    model: SileroModel, detection: TurnDetection | None, engine_rate_hz: int = 16_000
) -> Ears:
    return Ears(model, engine_rate_hz, VadSettings(), _config(detection))


def _beside(ears: Ears, near: np.ndarray, far: np.ndarray) -> list[Heard]:
    """Return what is heard in a microphone while something is played, 20 ms at a time."""
    heard: list[Heard] = []
    for start in range(0, len(near), 320):
        ears.played(far[start : start + 320])
        ears.hear_pcm(near[start : start + 320])
        while (event := ears.next(is_finished=False, would_interrupt=True)) is not None:
            heard.append(event)
    ears.finish()
    return [*heard, *_heard(ears)]


def _spoken() -> np.ndarray:
    return np.concatenate((silence(0.5, WIRE_HZ), voice(1.0, WIRE_HZ), silence(1.0, WIRE_HZ)))


def _heard(ears: Ears, *, is_finished: bool = False) -> list[Heard]:
    """Return what was heard so far, the model saying always the same."""
    heard: list[Heard] = []
    while (event := ears.next(is_finished=is_finished, would_interrupt=False)) is not None:
        heard.append(event)
    return heard


def _hear(
    ears: Ears, pcm: np.ndarray, chunk: int = 480, *, is_finished: bool = False
) -> list[Heard]:
    heard: list[Heard] = []
    for start in range(0, len(pcm), chunk):
        ears.hear(decode_base64(base64_pcm(pcm[start : start + chunk]), "audio"))
        heard += _heard(ears, is_finished=is_finished)
    ears.finish()
    return [*heard, *_heard(ears, is_finished=is_finished)]


def _boundaries(heard: list[Heard]) -> list[Heard]:
    passing = InputAudio | SpeechPaused | SpeechResumed | EndInDoubt
    return [event for event in heard if not isinstance(event, passing)]


def _samples(heard: list[Heard]) -> int:
    return sum(len(event.pcm) for event in heard if isinstance(event, InputAudio))


@pytest.mark.parametrize("engine_rate_hz", [16_000, 24_000])
def test_a_turn_is_found_where_it_is(model: SileroModel, engine_rate_hz: int) -> None:
    """Positions count appended audio, at any rate of the engine."""
    ears = _ears(model, SENSITIVE, engine_rate_hz)
    heard = _hear(ears, _spoken())
    began, ended = _boundaries(heard)
    assert isinstance(began, SpeechBegan)
    assert isinstance(ended, SpeechEnded)
    assert began.audio_start_ms == pytest.approx(500 - 300, abs=80)
    assert ended.audio_end_ms == pytest.approx(1_500 + 500, abs=100)
    assert _samples(heard) == 2.5 * engine_rate_hz
    # The audio up to a boundary comes before it, and the rest after it.
    before_end = heard[: heard.index(ended)]
    assert _samples(before_end) * 1000 // engine_rate_hz == ended.audio_end_ms


def test_cutting_does_not_matter(model: SileroModel) -> None:
    """One big append says the same as many small ones."""
    at_once = _boundaries(_hear(_ears(model, SENSITIVE), _spoken(), chunk=10**9))
    assert at_once == _boundaries(_hear(_ears(model, SENSITIVE), _spoken(), chunk=177))


def test_without_detection_audio_just_passes(model: SileroModel) -> None:
    """Push-to-talk hears no boundaries."""
    heard = _hear(_ears(model, None), _spoken())
    assert not _boundaries(heard)
    assert _samples(heard) == 2.5 * 16_000


def test_semantic_end_comes_sooner_when_the_model_says_so(model: SileroModel) -> None:
    """Without the model's word the wait is long; with it, short."""
    patient = _ears(model, SemanticVad("high"))
    assert not [b for b in _boundaries(_hear(patient, _spoken())) if isinstance(b, SpeechEnded)]
    told = _ears(model, SemanticVad("high"))
    speech, pause = np.split(_spoken(), [int(1.5 * WIRE_HZ)])
    _hear(told, speech)
    (ended,) = _boundaries(_hear(told, pause, is_finished=True))
    assert isinstance(ended, SpeechEnded)
    assert ended.audio_end_ms < 1_500 + 350


def test_server_vad_does_not_ask_the_model(model: SileroModel) -> None:
    """Its silence is what the client set."""
    ears = _ears(model, SENSITIVE)
    speech, pause = np.split(_spoken(), [int(1.5 * WIRE_HZ)])
    _hear(ears, speech)
    ears.sounds_finished()
    (ended,) = _boundaries(_hear(ears, pause))
    assert isinstance(ended, SpeechEnded)
    assert ended.audio_end_ms >= 1_950


def test_a_pause_is_heard_before_it_is_the_end(model: SileroModel) -> None:
    """The end may be near; what is heard then lies between the pause and what follows it."""
    talk = np.concatenate((_spoken()[: WIRE_HZ * 17 // 10], _spoken()[WIRE_HZ // 2 :]))
    heard = _hear(_ears(model, replace(SENSITIVE, threshold=0.2)), talk)
    kinds = [type(event) for event in heard if not isinstance(event, InputAudio)]
    assert kinds == [SpeechBegan, SpeechPaused, SpeechResumed, SpeechPaused, SpeechEnded]
    places = [i for i, event in enumerate(heard) if isinstance(event, SpeechPaused | SpeechEnded)]
    last_pause, end = places[-2:]
    assert _samples(heard[last_pause:end]) == pytest.approx(16_000 * 0.416, abs=2)


def test_pauses_can_be_let_be(model: SileroModel) -> None:
    """A server may wait for the end."""
    ears = Ears(model, 16_000, VadSettings(speculate_after_ms=0), _config(SENSITIVE))
    assert not [e for e in _hear(ears, _spoken()) if isinstance(e, SpeechPaused | SpeechResumed)]


def test_after_a_restart_speech_is_found_anew(model: SileroModel) -> None:
    """A commit by hand ends what detection was following."""
    ears = _ears(model, SENSITIVE)
    _hear(ears, _spoken()[: int(1.2 * WIRE_HZ)])
    ears.restart()
    began, ended = _boundaries(_hear(ears, _spoken()))
    assert isinstance(began, SpeechBegan)
    assert began.audio_start_ms == pytest.approx(1_200 + 200, abs=80)
    assert isinstance(ended, SpeechEnded)


def test_formats_can_change_between_appends(model: SileroModel) -> None:
    """A session may switch to a telephone's encoding."""
    ears = _ears(model, None)
    ears.hear(decode_base64(base64_pcm(silence(0.1, WIRE_HZ)), "audio"))
    ears.configure(_config(None, AudioFormat("audio/pcmu")))
    assert _samples(_heard(ears)) == 1_600
    ears.hear(decode_base64("/w" + "//" * 400, "audio"))
    ears.finish()
    assert _samples(_heard(ears)) == pytest.approx(1_200, abs=4)


def _bytes(audio_format: AudioFormat, pcm: np.ndarray) -> bytes:
    encoder = AudioEncoder(audio_format.encoding, audio_format.rate_hz, 16_000)
    return encoder.encode(pcm) + encoder.finish()


def _heard_pcm(heard: list[Heard]) -> np.ndarray:
    return np.concatenate([event.pcm for event in heard if isinstance(event, InputAudio)])


@pytest.mark.parametrize("encoding", ["audio/pcm", "audio/pcmu", "audio/pcma"])
@pytest.mark.parametrize("size", [1, 3, 160])
def test_crumbs_make_the_same_audio(model: SileroModel, encoding: Encoding, size: int) -> None:
    """Appends of a byte, of half samples, of anything: there are no seams."""
    audio_format = AudioFormat(encoding)
    data = _bytes(audio_format, voice(0.25))
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    heard = []
    for appended in (pieces, [data]):
        ears = Ears(model, 16_000, VadSettings(), _config(None, audio_format))
        for each in appended:
            ears.hear(each)
        ears.finish()
        heard.append(_heard_pcm(_heard(ears)))
    np.testing.assert_allclose(heard[0], heard[1], atol=1e-6)
    assert len(heard[0]) == 4_000


def test_the_most_that_one_append_holds(model: SileroModel) -> None:
    """15 MiB at once are five and a half minutes, and all of them are heard."""
    ears = _ears(model, None)
    data = bytes(15 * 1024 * 1024)
    ears.hear(data)
    ears.finish()
    assert _samples(_heard(ears)) == len(data) // 2 * 2 // 3


@pytest.mark.parametrize(
    ("eagerness", "wait_ms"), [("low", 8_000), ("auto", 4_000), ("high", 2_000)]
)
def test_how_long_a_semantic_turn_waits_at_most(
    model: SileroModel, eagerness: Eagerness, wait_ms: int
) -> None:
    """However unfinished it sounds, silence ends it after what is documented."""
    ears = _ears(model, SemanticVad(eagerness))
    _hear(ears, _spoken()[: int(1.5 * WIRE_HZ)])
    (ended,) = _boundaries(_hear(ears, silence(wait_ms / 1000 + 0.5, WIRE_HZ)))
    assert isinstance(ended, SpeechEnded)
    assert ended.audio_end_ms == pytest.approx(1_500 + wait_ms, abs=150)


@pytest.mark.parametrize("lead_s", [0.0, 0.3, 0.8])
def test_who_speaks_as_a_reply_begins_is_heard_untouched(model: SileroModel, lead_s: float) -> None:
    """With a headset: to the bit, and from the first sound on, once it is known to be no echo."""
    lead = silence(lead_s + 0.3)
    said = read_sound(ASSETS / "two_plus_two.wav", 16_000)
    near = np.concatenate((lead, said, silence(2.0))).astype(np.float32)
    far = np.concatenate((silence(0.3), voice(5.0)))[: len(near)]
    near += np.random.default_rng(0).normal(0, 5e-4, len(near)).astype(np.float32)
    ears = Ears(model, 16_000, VadSettings(), _config(ServerVad()), cancels_echo=True)
    heard = _beside(ears, near, far)
    passed = np.concatenate([event.pcm for event in heard if isinstance(event, InputAudio)])
    assert np.array_equal(passed, near)
    (began,) = (event for event in heard if isinstance(event, SpeechBegan))
    alone = Ears(model, 16_000, VadSettings(), _config(ServerVad()))
    heard = _beside(alone, near, np.zeros_like(far))
    (expected,) = (event for event in heard if isinstance(event, SpeechBegan))
    assert began == expected


def test_a_reply_that_begins_in_a_loudspeaker_interrupts_nobody(model: SileroModel) -> None:
    """What is heard before it is known to be an echo is nobody's speech."""
    far = voice(4.0)
    near = 0.4 * np.concatenate((silence(0.12), far))[: len(far)]
    near = near + np.random.default_rng(0).normal(0, 5e-4, len(far)).astype(np.float32)
    ears = Ears(model, 16_000, VadSettings(), _config(ServerVad()), cancels_echo=True)
    heard = _beside(ears, near.astype(np.float32), far)
    assert all(isinstance(event, InputAudio) for event in heard)
