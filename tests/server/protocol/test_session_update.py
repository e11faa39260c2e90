"""Partial updates merge leaf by leaf, or not at all."""

from typing import Any

import pytest

from server.errors import ClientError
from server.protocol.session_config import (
    AudioFormat,
    SemanticVad,
    ServerVad,
    SessionConfig,
    Transcription,
)
from server.protocol.session_update import updated
from tests.server.protocol.transcripts import VOICES

CONFIG = SessionConfig(id="s", model="m", voice="alloy", expires_at=1)


def _update(config: SessionConfig, *, is_voice_locked: bool = False, **patch: Any) -> SessionConfig:
    patch = {"type": "realtime", **patch}
    return updated(config, patch, VOICES, is_voice_locked=is_voice_locked)


def _error(**patch: Any) -> ClientError:
    with pytest.raises(ClientError) as caught:
        _update(CONFIG, **patch)
    return caught.value


def test_only_what_is_present_changes() -> None:
    """A voice alone leaves the input as it was, and the other way round."""
    config = _update(CONFIG, audio={"output": {"voice": "echo"}})
    assert config.voice == "echo"
    assert config.turn_detection == ServerVad(silence_duration_ms=200)
    config = _update(config, audio={"input": {"transcription": {"model": "whisper-1"}}})
    assert (config.voice, config.transcription) == ("echo", Transcription({"model": "whisper-1"}))
    assert config.turn_detection == ServerVad(silence_duration_ms=200)


def test_null_is_not_absent() -> None:
    """Null clears; a key that is not there does nothing."""
    config = _update(CONFIG, audio={"input": {"turn_detection": None}})
    assert config.turn_detection is None
    assert _update(config, audio={"input": {}}).turn_detection is None
    config = _update(config, audio={"input": {"turn_detection": {"type": "server_vad"}}})
    assert config.turn_detection == ServerVad(silence_duration_ms=500)


def test_turn_detection_is_replaced_whole() -> None:
    """Leaves that are not given take their defaults, not what was before."""
    first = {"type": "server_vad", "threshold": 0.9, "create_response": False}
    config = _update(CONFIG, audio={"input": {"turn_detection": first}})
    assert config.turn_detection == ServerVad(threshold=0.9, create_response=False)
    second = {"type": "server_vad", "prefix_padding_ms": 10}
    config = _update(config, audio={"input": {"turn_detection": second}})
    assert config.turn_detection == ServerVad(prefix_padding_ms=10)
    third = {"type": "semantic_vad", "interrupt_response": False}
    config = _update(config, audio={"input": {"turn_detection": third}})
    assert config.turn_detection == SemanticVad(interrupt_response=False)


def test_noise_reduction_keeps_its_strength() -> None:
    """The one leaf that is documented to survive an update without it."""
    first = {"type": "near_field", "strength": 0.5}
    config = _update(CONFIG, audio={"input": {"noise_reduction": first}})
    second = {"type": "far_field"}
    config = _update(config, audio={"input": {"noise_reduction": second}})
    assert config.noise_reduction == {"type": "far_field", "strength": 0.5}


def test_what_is_accepted_and_only_echoed() -> None:
    """Clients send these at once and must not be refused for it."""
    config = _update(
        CONFIG,
        tracing={"workflow_name": "w"},
        truncation={"type": "retention_ratio", "retention_ratio": 0.5},
        prompt={"id": "pmpt_1"},
        include=["item.input_audio_transcription.logprobs"],
        parallel_tool_calls=True,
        reasoning={"effort": "low"},
        tools=[],
        tool_choice="auto",
        model="gpt-realtime-2.1",
        id="sess_other",
        expires_at=5,
    )
    session = config.to_json()
    assert session["tracing"] == {"workflow_name": "w"}
    assert session["parallel_tool_calls"] is True
    assert session["reasoning"] == {"effort": "low"}
    assert (session["model"], session["id"], session["expires_at"]) == ("m", "s", 1)


def test_only_known_transcription_keys_are_echoed() -> None:
    """One client breaks on any other."""
    given = {"model": "w", "language": "en", "prompt": "p", "keywords": ["k"], "delay": 1}
    config = _update(CONFIG, audio={"input": {"transcription": given}})
    echoed = config.to_json()["audio"]["input"]["transcription"]
    assert echoed == {"model": "w", "language": "en", "prompt": "p"}


def test_formats() -> None:
    """PCM states its rate, G.711 has only one, and each direction has its own."""
    config = _update(CONFIG, audio={"input": {"format": {"type": "audio/pcmu", "rate": 8000}}})
    assert config.input_format == AudioFormat("audio/pcmu")
    assert config.output_format == AudioFormat("audio/pcm")
    assert config.to_json()["audio"]["input"]["format"] == {"type": "audio/pcmu"}
    assert _update(CONFIG, audio={"input": {"format": {}}}).input_format == AudioFormat()


def test_voices() -> None:
    """A voice may be given as an object and is always echoed as a string; the lock is on change."""
    assert _update(CONFIG, audio={"output": {"voice": {"id": "echo"}}}).voice == "echo"
    same = {"output": {"voice": "alloy"}}
    assert _update(CONFIG, is_voice_locked=True, audio=same) == CONFIG
    with pytest.raises(ClientError) as caught:
        _update(CONFIG, is_voice_locked=True, audio={"output": {"voice": "echo"}})
    assert caught.value.code == "cannot_update_voice"


@pytest.mark.parametrize(
    ("patch", "code", "param"),
    [
        ({"instructions": None}, "invalid_type", "session.instructions"),
        ({"temperature": 0.8}, "unknown_parameter", "session.temperature"),
        ({"audio": {"input": {"x": 1}}}, "unknown_parameter", "session.audio.input.x"),
        (
            {"audio": {"output": {"speed": 9}}},
            "decimal_above_max_value",
            "session.audio.output.speed",
        ),
        ({"max_output_tokens": "12"}, "invalid_type", "session.max_output_tokens"),
        ({"max_output_tokens": 0}, "integer_below_min_value", "session.max_output_tokens"),
        ({"max_output_tokens": True}, "invalid_type", "session.max_output_tokens"),
        ({"truncation": "sometimes"}, "invalid_value", "session.truncation"),
        (
            {"truncation": {"type": "retention_ratio"}},
            "missing_required_parameter",
            "session.truncation.retention_ratio",
        ),
        ({"tool_choice": "required"}, "unsupported_parameter", "session.tool_choice"),
        ({"reasoning": {"effort": "none"}}, "invalid_value", "session.reasoning.effort"),
        ({"include": ["x"]}, "invalid_value", "session.include"),
    ],
)
def test_what_is_refused(patch: dict[str, Any], code: str, param: str) -> None:
    """The code and the path are the API's."""
    error = _error(**patch)
    assert (error.code, error.param) == (code, param)


def test_a_refused_update_changes_nothing() -> None:
    """The good half of a bad update is not applied."""
    with pytest.raises(ClientError):
        _update(CONFIG, instructions="new", audio={"output": {"voice": "bogus"}})
    assert CONFIG.instructions == ""
