"""The beta shape of a session, read and written."""

from typing import Any

import pytest
from hypothesis import given, settings

from server.protocol.dialects.beta import BetaDialect
from server.protocol.settings.config import Transcription
from tests.server.protocol.harness import ConfigWire
from tests.server.protocol.patches import (
    BETA_FIELDS,
    BETA_TRANSCRIPTION_FIELDS,
    Patch,
    patches,
    shows,
)

_UPDATE = {"realtime": "session.update", "transcription": "transcription_session.update"}


def _wire(kind: Any = "realtime") -> ConfigWire:
    return ConfigWire(BetaDialect(), is_beta=True, kind=kind)


def test_the_session_is_flat() -> None:
    """Exactly the documented keys, with beta's names of values."""
    assert _wire().created()["session"] == {
        "id": "sess_1",
        "object": "realtime.session",
        "model": "m",
        "modalities": ["audio", "text"],
        "instructions": "",
        "voice": "alloy",
        "turn_detection": {
            "type": "server_vad",
            "threshold": 0.5,
            "prefix_padding_ms": 300,
            "silence_duration_ms": 200,
            "idle_timeout_ms": None,
            "create_response": True,
            "interrupt_response": True,
        },
        "input_audio_format": "pcm16",
        "output_audio_format": "pcm16",
        "input_audio_transcription": None,
        "input_audio_noise_reduction": None,
        "tools": [],
        "tool_choice": "auto",
        "temperature": 0.8,
        "max_response_output_tokens": "inf",
        "speed": 1.0,
        "tracing": None,
        "expires_at": 1,
        "include": None,
        "client_secret": None,
    }


def test_a_transcription_session_has_events_of_its_own() -> None:
    """Their names say what it is, and its object holds the input alone."""
    wire = _wire("transcription")
    created = wire.created()
    assert created["type"] == "transcription_session.created"
    assert created["session"]["object"] == "realtime.transcription_session"
    patch = {"input_audio_transcription": {"model": "whisper-1"}, "modalities": ["text"]}
    answer = wire.update(patch, "transcription_session.update")
    assert answer["type"] == "transcription_session.updated"
    assert answer["session"] == {
        "id": "sess_1",
        "object": "realtime.transcription_session",
        "input_audio_format": "pcm16",
        "input_audio_transcription": {"model": "whisper-1"},
        "input_audio_noise_reduction": None,
        "turn_detection": {
            "type": "server_vad",
            "threshold": 0.5,
            "prefix_padding_ms": 300,
            "silence_duration_ms": 200,
        },
        "include": None,
        "expires_at": 1,
        "client_secret": None,
    }


@pytest.mark.parametrize(
    ("kind", "event", "message"),
    [
        (
            "realtime",
            "transcription_session.update",
            "Passing a transcription session update event to a realtime session is not allowed.",
        ),
        (
            "transcription",
            "session.update",
            "Passing a realtime session update event to a transcription session is not allowed.",
        ),
    ],
)
def test_an_update_for_the_other_kind_is_refused(kind: str, event: str, message: str) -> None:
    """In the hosted service's sentences."""
    error = _wire(kind).update({}, event)["error"]
    assert (error["message"], error["code"]) == (message, None)


def test_a_name_of_the_other_shape_is_told_as_such() -> None:
    """The words begin as the API's do, and go on with what was meant."""
    assert _wire().update({"output_modalities": ["text"]})["error"]["message"] == (
        "Unknown parameter: 'session.output_modalities'. It belongs to the GA API, and this "
        "connection speaks beta: use 'session.modalities'."
    )


def test_forms_of_2024_are_understood() -> None:
    """Early clients switch turn detection off by a type, and transcription on by a flag."""
    wire = _wire()
    early = {
        "turn_detection": {"type": "none"},
        "input_audio_transcription": {"enabled": True, "model": "whisper-1"},
        "max_output_tokens": 7,
        "tool_choice": "none",
        "client_secret": {"value": "x"},
    }
    session = wire.update(early)["session"]
    assert session["turn_detection"] is None
    assert session["max_response_output_tokens"] == 7
    assert wire.config.transcription == Transcription({"model": "whisper-1"})
    wire.update({"input_audio_transcription": {"enabled": False}})
    assert wire.config.transcription is None


def test_a_refused_update_leaves_the_temperature() -> None:
    """It is beta's own, and part of the whole like everything else."""
    wire = _wire()
    wire.update({"temperature": 1.1})
    wire.update({"temperature": 0.7, "voice": "bogus"})
    assert wire.created()["session"]["temperature"] == 1.1


@pytest.mark.parametrize(
    ("patch", "code", "param", "message"),
    [
        (
            {"temperature": 0.3},
            "decimal_below_min_value",
            "session.temperature",
            "Invalid 'session.temperature': decimal below minimum value. Expected a value >= 0.6, ",
        ),
        (
            {"modalities": ["audio"]},
            "invalid_value",
            "session.modalities",
            "Invalid modalities: ['audio']. Supported combinations are: ['text'] and ['audio', ",
        ),
        (
            {"turn_detection": {"type": "server_vad", "threshold": 5}},
            "decimal_above_max_value",
            "session.turn_detection.threshold",
            "Invalid 'session.turn_detection.threshold': decimal above maximum value.",
        ),
        (
            {"max_response_output_tokens": 0},
            "integer_below_min_value",
            "session.max_response_output_tokens",
            "Invalid 'session.max_response_output_tokens': ",
        ),
        (
            {"input_audio_format": "pcm8"},
            "invalid_value",
            "session.input_audio_format",
            "Invalid value: 'pcm8'. Supported values are: 'pcm16', 'g711_ulaw', and 'g711_alaw'.",
        ),
        ({"voice": None}, "invalid_type", "session.voice", "Invalid type for 'session.voice'"),
        (
            {"output_modalities": ["text"]},
            "unknown_parameter",
            "session.output_modalities",
            "Unknown parameter: 'session.output_modalities'.",
        ),
        ({"foo": 1}, "unknown_parameter", "session.foo", "Unknown parameter: 'session.foo'."),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_refused(patch: Patch, code: str, param: str, message: str) -> None:
    """Under the names that the client used; a name of the other shape is told as such."""
    error = _wire().update(patch)["error"]
    assert (error["code"], error["param"]) == (code, param)
    assert error["message"].startswith(message)


@settings(max_examples=150, deadline=None)
@given(patches(BETA_FIELDS), patches(BETA_FIELDS))
def test_an_update_applies_wholly_or_changes_nothing(first: Patch, second: Patch) -> None:
    """And every echo is one that the published types can read."""
    _check_updates("realtime", [first, second], [*BETA_FIELDS])


@settings(max_examples=60, deadline=None)
@given(patches(BETA_TRANSCRIPTION_FIELDS))
def test_so_does_one_of_a_transcription_session(patch: Patch) -> None:
    """The same rule under other names."""
    _check_updates("transcription", [patch], [*BETA_TRANSCRIPTION_FIELDS])


def _check_updates(kind: str, sent: list[Patch], names: list[str]) -> None:
    wire = _wire(kind)
    before = wire.created()["session"]
    for patch in sent:
        config = wire.config
        answer = wire.update(patch, _UPDATE[kind])
        if answer["type"] == "error":
            assert wire.config == config
            continue
        after = answer["session"]
        for name in names:
            if name not in patch:
                assert after[name] == before[name], name
            elif name == "modalities":
                assert sorted(after[name]) == sorted(patch[name])
            else:
                is_transcription = kind == "transcription"
                assert shows(after[name], patch[name], is_transcription=is_transcription), name
        before = after
