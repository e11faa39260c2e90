"""The audio part of a session: each direction on its own, each leaf with its range."""

from typing import Any

import pytest

from server.errors import ClientError
from server.protocol.settings.config import (
    AudioFormat,
    SemanticVad,
    ServerVad,
    SessionConfig,
    Transcription,
)
from server.protocol.settings.update import updated
from tests.server.protocol.harness import CONFIG, VOICES


def _hearing(config: SessionConfig, **audio_input: Any) -> SessionConfig:
    patch = {"type": "realtime", "audio": {"input": audio_input}}
    return updated(config, patch, VOICES, is_voice_locked=False)


def _speaking(config: SessionConfig, *, is_locked: bool = False, **output: Any) -> SessionConfig:
    patch = {"type": "realtime", "audio": {"output": output}}
    return updated(config, patch, VOICES, is_voice_locked=is_locked)


def test_turn_detection_is_replaced_whole() -> None:
    """Leaves that are not given take their defaults, not what was before; silence is then 500."""
    first = {"type": "server_vad", "threshold": 0.9, "create_response": False}
    config = _hearing(CONFIG, turn_detection=first)
    assert config.turn_detection == ServerVad(threshold=0.9, create_response=False)
    config = _hearing(config, turn_detection={"type": "server_vad", "prefix_padding_ms": 10})
    assert config.turn_detection == ServerVad(prefix_padding_ms=10, silence_duration_ms=500)
    third = {"type": "semantic_vad", "interrupt_response": False, "eagerness": "high"}
    config = _hearing(config, turn_detection=third)
    assert config.turn_detection == SemanticVad("high", interrupt_response=False)
    config = _hearing(config, turn_detection={"type": "semantic_vad"})
    assert config.turn_detection == SemanticVad("auto")


def test_all_leaves_of_turn_detection_are_echoed() -> None:
    """Clients read them from the echo to know what to do themselves."""
    echoed = _hearing(CONFIG, turn_detection={"type": "server_vad", "idle_timeout_ms": 5000})
    assert echoed.to_json()["audio"]["input"]["turn_detection"] == {
        "type": "server_vad",
        "threshold": 0.5,
        "prefix_padding_ms": 300,
        "silence_duration_ms": 500,
        "idle_timeout_ms": 5000,
        "create_response": True,
        "interrupt_response": True,
    }


def test_noise_reduction_keeps_its_strength() -> None:
    """The one leaf that is documented to survive an update without it."""
    config = _hearing(CONFIG, noise_reduction={"type": "near_field", "strength": 0.5})
    config = _hearing(config, noise_reduction={"type": "far_field"})
    assert config.noise_reduction == {"type": "far_field", "strength": 0.5}
    assert _hearing(config, noise_reduction=None).noise_reduction is None


def test_transcription_merges_leaf_by_leaf() -> None:
    """A language alone keeps the model; null takes a leaf away, or the whole."""
    config = _hearing(CONFIG, transcription={"model": "whisper-1", "prompt": "p"})
    config = _hearing(config, transcription={"language": "en", "prompt": None})
    assert config.transcription == Transcription({"model": "whisper-1", "language": "en"})
    assert config.is_transcribing
    assert not _hearing(config, transcription=None).is_transcribing


def test_only_known_transcription_keys_are_echoed() -> None:
    """One client breaks on any other."""
    given = {
        "model": "w",
        "language": "en",
        "prompt": "p",
        "keywords": ["k"],
        "languages": ["en", "de"],
        "delay": "low",
    }
    config = _hearing(CONFIG, transcription=given)
    echoed = config.to_json()["audio"]["input"]["transcription"]
    assert echoed == {"model": "w", "language": "en", "prompt": "p"}


def test_formats() -> None:
    """PCM states its rate, G.711 has only one, and each direction has its own."""
    config = _hearing(CONFIG, format={"type": "audio/pcmu", "rate": 8000})
    assert config.input_format == AudioFormat("audio/pcmu")
    assert config.output_format == AudioFormat("audio/pcm")
    assert config.to_json()["audio"]["input"]["format"] == {"type": "audio/pcmu"}
    assert _hearing(CONFIG, format={}).input_format == AudioFormat()


def test_voices() -> None:
    """A voice may be given as an object and is always echoed as a string; the lock is on change."""
    assert _speaking(CONFIG, voice={"id": "echo"}).voice == "echo"
    assert _speaking(CONFIG, is_locked=True, voice="alloy") == CONFIG
    with pytest.raises(ClientError) as caught:
        _speaking(CONFIG, is_locked=True, voice="echo")
    assert caught.value.code == "cannot_update_voice"
    assert "if assistant audio is present" in caught.value.message


@pytest.mark.parametrize("speed", [0.25, 1, 1.5, 4])
def test_speeds_beyond_the_hosted_ones(speed: float) -> None:
    """The API ends at 1.5; here it goes on to 4."""
    assert _speaking(CONFIG, speed=speed).speed == speed


@pytest.mark.parametrize(
    ("leaf", "value", "code", "path"),
    [
        ("format", None, "invalid_type", "format"),
        ("format", "pcm16", "invalid_type", "format"),
        ("format", {"type": "audio/opus"}, "invalid_value", "format.type"),
        ("format", {"type": "audio/pcm", "rate": 16000}, "invalid_value", "format.rate"),
        ("transcription", {"model": 1}, "invalid_type", "transcription.model"),
        ("transcription", {"delay": 1}, "invalid_type", "transcription.delay"),
        ("transcription", {"keywords": [1]}, "invalid_type", "transcription.keywords[0]"),
        ("noise_reduction", {"type": "loud"}, "invalid_value", "noise_reduction.type"),
        ("turn_detection", {}, "missing_required_parameter", "turn_detection.type"),
        ("turn_detection", {"type": "none"}, "invalid_value", "turn_detection.type"),
        (
            "turn_detection",
            {"type": "semantic_vad", "threshold": 0.5},
            "unknown_parameter",
            "turn_detection.threshold",
        ),
        (
            "turn_detection",
            {"type": "server_vad", "eagerness": "low"},
            "unknown_parameter",
            "turn_detection.eagerness",
        ),
        (
            "turn_detection",
            {"type": "semantic_vad", "eagerness": "very"},
            "invalid_value",
            "turn_detection.eagerness",
        ),
        (
            "turn_detection",
            {"type": "server_vad", "threshold": 5},
            "decimal_above_max_value",
            "turn_detection.threshold",
        ),
        (
            "turn_detection",
            {"type": "server_vad", "silence_duration_ms": -1},
            "integer_below_min_value",
            "turn_detection.silence_duration_ms",
        ),
        (
            "turn_detection",
            {"type": "server_vad", "idle_timeout_ms": 4999},
            "integer_below_min_value",
            "turn_detection.idle_timeout_ms",
        ),
        (
            "turn_detection",
            {"type": "server_vad", "idle_timeout_ms": 30001},
            "integer_above_max_value",
            "turn_detection.idle_timeout_ms",
        ),
        (
            "turn_detection",
            {"type": "server_vad", "create_response": None},
            "invalid_type",
            "turn_detection.create_response",
        ),
    ],
)
def test_what_is_refused_of_the_input(leaf: str, value: Any, code: str, path: str) -> None:
    """The code and the path are the API's."""
    with pytest.raises(ClientError) as caught:
        _hearing(CONFIG, **{leaf: value})
    assert (caught.value.code, caught.value.param) == (code, f"session.audio.input.{path}")


@pytest.mark.parametrize(
    ("leaf", "value", "code", "path"),
    [
        ("speed", 4.1, "decimal_above_max_value", "speed"),
        ("speed", 0.2, "decimal_below_min_value", "speed"),
        ("speed", 10**400, "decimal_above_max_value", "speed"),
        ("speed", True, "invalid_type", "speed"),
        ("voice", "bogus", "invalid_value", "voice"),
        ("voice", {"id": "bogus"}, "invalid_value", "voice.id"),
        ("voice", {}, "missing_required_parameter", "voice.id"),
        ("pitch", 1, "unknown_parameter", "pitch"),
    ],
)
def test_what_is_refused_of_the_output(leaf: str, value: Any, code: str, path: str) -> None:
    """The code and the path are the API's."""
    with pytest.raises(ClientError) as caught:
        _speaking(CONFIG, **{leaf: value})
    assert (caught.value.code, caught.value.param) == (code, f"session.audio.output.{path}")
