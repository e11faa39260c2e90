"""Partial updates merge leaf by leaf, or not at all."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.errors import ClientError
from server.protocol.dialects.beta import BetaDialect
from server.protocol.dialects.ga import GaDialect
from server.protocol.settings.config import ServerVad, SessionConfig, Transcription
from server.protocol.settings.update import requested, updated
from tests.server.protocol.harness import CONFIG, VOICES, ConfigWire
from tests.server.protocol.patches import (
    GA_FIELDS,
    GA_TRANSCRIPTION_FIELDS,
    Patch,
    anything,
    at,
    patches,
    shows,
)


def _update(config: SessionConfig, **patch: Any) -> SessionConfig:
    return updated(config, {"type": "realtime", **patch}, VOICES, is_voice_locked=False)


def _error(patch: Patch) -> ClientError:
    with pytest.raises(ClientError) as caught:
        updated(CONFIG, patch, VOICES, is_voice_locked=False)
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
    config = _update(config, prompt={"id": "pmpt_1"}, include=[], parallel_tool_calls=True)
    assert _update(config) == config
    cleared = _update(config, prompt=None, include=None, parallel_tool_calls=None)
    assert (cleared.prompt, cleared.include, cleared.parallel_tool_calls) == (None, None, None)


@pytest.mark.parametrize(
    "key", ["instructions", "tools", "tool_choice", "max_output_tokens", "truncation"]
)
def test_null_is_refused_where_it_means_nothing(key: str) -> None:
    """Such fields are cleared by an empty value, or cannot be."""
    error = _error({"type": "realtime", key: None})
    assert (error.code, error.param) == ("invalid_type", f"session.{key}")


def test_what_is_accepted_and_only_echoed() -> None:
    """Clients send these at once and must not be refused for it."""
    config = _update(
        CONFIG,
        tracing={"workflow_name": "w"},
        truncation={"type": "retention_ratio", "retention_ratio": 0.5},
        prompt={"id": "pmpt_1"},
        include=["item.input_audio_transcription.logprobs"],
        parallel_tool_calls=True,
        reasoning={"effort": "none"},
        model="gpt-realtime-2.1",
        id="sess_other",
        expires_at=5,
    )
    session = config.to_json()
    assert session["tracing"] == {"workflow_name": "w"}
    assert session["parallel_tool_calls"] is True
    assert session["reasoning"] == {"effort": "none"}
    assert (session["model"], session["id"], session["expires_at"]) == ("m", "sess_1", 1)


def test_tracing_cannot_be_changed_once_it_is_on() -> None:
    """Saying the same again is no change."""
    config = _update(_update(CONFIG, tracing=None), tracing="auto")
    assert _update(config, tracing="auto", instructions="x").tracing == "auto"
    for other in (None, {"workflow_name": "w"}):
        with pytest.raises(ClientError) as caught:
            _update(config, tracing=other)
        assert caught.value.code == "cannot_update_tracing"


def test_tools_and_choice_are_judged_together() -> None:
    """A demanded function must be offered, whichever of the two came last."""
    f, g = ({"type": "function", "name": name} for name in "fg")
    config = _update(CONFIG, tools=[f], tool_choice={"type": "function", "name": "f"})
    assert config.to_json()["tool_choice"] == {"type": "function", "name": "f"}
    patch: dict[str, Any]
    for patch in (
        {"tools": [g]},
        {"tools": []},
        {"tool_choice": {"type": "function", "name": "g"}},
    ):
        with pytest.raises(ClientError) as caught:
            _update(config, **patch)
        assert caught.value.param == "session.tool_choice"
    assert _update(config, tools=[g], tool_choice="auto").tools[0].name == "g"


@pytest.mark.parametrize(
    ("patch", "code", "param", "message"),
    [
        ({}, "missing_required_parameter", "session.type", "Missing required parameter: "),
        (
            {"type": "session"},
            "invalid_value",
            "session.type",
            "Invalid value: 'session'. Supported values are: 'realtime' and 'transcription'.",
        ),
        ({"foo": 1}, "unknown_parameter", "session.foo", "Unknown parameter: 'session.foo'."),
        ({"audio": {"x": 1}}, "unknown_parameter", "session.audio.x", ""),
        (
            {"audio": "x"},
            "invalid_type",
            "session.audio",
            "Invalid type for 'session.audio': expected an object, but got a string instead.",
        ),
        (
            {"output_modalities": ["text", "audio"]},
            "invalid_value",
            "session.output_modalities",
            "",
        ),
        ({"max_output_tokens": "12"}, "invalid_type", "session.max_output_tokens", ""),
        (
            {"max_output_tokens": 0},
            "integer_below_min_value",
            "session.max_output_tokens",
            "Invalid 'session.max_output_tokens': integer below minimum value. Expected a ",
        ),
        ({"max_output_tokens": 5000}, "integer_above_max_value", "session.max_output_tokens", ""),
        ({"max_output_tokens": True}, "invalid_type", "session.max_output_tokens", ""),
        ({"truncation": "sometimes"}, "invalid_value", "session.truncation", ""),
        (
            {"truncation": {"type": "retention_ratio"}},
            "missing_required_parameter",
            "session.truncation.retention_ratio",
            "",
        ),
        (
            {"truncation": {"type": "retention_ratio", "retention_ratio": 8}},
            "decimal_above_max_value",
            "session.truncation.retention_ratio",
            "",
        ),
        ({"reasoning": {"effort": "most"}}, "invalid_value", "session.reasoning.effort", ""),
        ({"include": ["x"]}, "invalid_value", "session.include[0]", ""),
        ({"tracing": "always"}, "invalid_value", "session.tracing", ""),
        ({"prompt": {}}, "missing_required_parameter", "session.prompt.id", ""),
        ({"instructions": "\ud800"}, "invalid_value", "session.instructions", ""),
        (
            {"tools": [{"type": "mcp", "server_label": "s", "tunnel_id": "t"}]},
            "unsupported_parameter",
            "session.tools[0].tunnel_id",
            "Unsupported parameter: 'session.tools[0].tunnel_id'. Tunnels belong to the hosted",
        ),
    ],
)
def test_what_is_refused(patch: Patch, code: str, param: str, message: str) -> None:
    """The code, the path and the words are the API's."""
    has_own_type = not patch or "type" in patch
    error = _error(patch if has_own_type else {"type": "realtime", **patch})
    assert (error.code, error.param) == (code, param)
    assert error.message.startswith(message)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "realtime",
            "Passing a transcription session update event to a realtime session is not allowed.",
        ),
        (
            "transcription",
            "Passing a realtime session update event to a transcription session is not allowed.",
        ),
    ],
)
def test_a_session_stays_of_its_kind(kind: Any, message: str) -> None:
    """The sentences are the hosted service's, and they come without a code."""
    other = {"realtime": "transcription", "transcription": "realtime"}[kind]
    with pytest.raises(ClientError) as caught:
        updated(replace(CONFIG, kind=kind), {"type": other}, VOICES, is_voice_locked=False)
    assert (caught.value.message, caught.value.code) == (message, None)


def test_a_transcription_session_has_an_input_only() -> None:
    """What is about responses is unknown there; what is echoed says what it is."""
    wire = ConfigWire(GaDialect(), kind="transcription")
    assert wire.created()["session"]["object"] == "realtime.transcription_session"
    patch: dict[str, Any]
    for patch in ({"instructions": "x"}, {"tools": []}, {"audio": {"output": {}}}, {"model": "m"}):
        answer = wire.update({"type": "transcription", **patch})
        assert answer["error"]["code"] == "unknown_parameter"
    echo = wire.update(
        {"type": "transcription", "audio": {"input": {"format": {"type": "audio/pcmu"}}}}
    )
    assert set(echo["session"]) == {"type", "object", "id", "expires_at", "audio", "include"}
    assert echo["session"]["audio"]["input"]["format"] == {"type": "audio/pcmu"}
    assert "create_response" not in echo["session"]["audio"]["input"]["turn_detection"]


def test_a_new_session_takes_its_kind_and_model() -> None:
    """A request for a session is an update of the defaults that may say what the session is."""
    config = requested(CONFIG, {"type": "realtime", "model": "gpt-realtime"}, VOICES)
    assert config == replace(CONFIG, model="gpt-realtime")
    assert requested(CONFIG, {"type": "transcription"}, VOICES).kind == "transcription"
    assert requested(CONFIG, {"type": "realtime", "model": None}, VOICES).model == "m"


@settings(max_examples=200, deadline=None)
@given(patches(GA_FIELDS, "realtime"), patches(GA_FIELDS, "realtime"))
def test_an_update_applies_wholly_or_changes_nothing(first: Patch, second: Patch) -> None:
    """And every echo is one that the published types can read."""
    _check_updates(ConfigWire(GaDialect()), [first, second], [*GA_FIELDS])


@settings(max_examples=60, deadline=None)
@given(patches(GA_TRANSCRIPTION_FIELDS, "transcription"))
def test_so_does_one_of_a_transcription_session(patch: Patch) -> None:
    """The same rule, and the other shape."""
    wire = ConfigWire(GaDialect(), kind="transcription")
    _check_updates(wire, [patch], [*GA_TRANSCRIPTION_FIELDS])


@settings(max_examples=200, deadline=None)
@given(anything(), st.sampled_from(["realtime", "transcription"]), st.booleans())
def test_whatever_is_sent_is_answered(session: Any, kind: str, is_beta: bool) -> None:
    """With an echo or with an error that clients can read, and never by an exception."""
    dialect = BetaDialect() if is_beta else GaDialect()
    wire = ConfigWire(dialect, is_beta=is_beta, kind=kind)
    if isinstance(session, dict) and not is_beta:
        session = {"type": kind, **session}
    before = wire.config
    for event in ("session.update", "transcription_session.update"):
        answer = wire.update(session, event)
        if answer["type"] == "error":
            assert wire.config == before
            assert answer["error"]["message"]
        before = wire.config


def _check_updates(wire: ConfigWire, sent: list[Patch], names: list[str]) -> None:
    before = wire.created()["session"]
    for patch in sent:
        config = wire.config
        answer = wire.update(patch)
        if answer["type"] == "error":
            assert wire.config == config
            assert answer["error"]["type"] == "invalid_request_error"
            continue
        after = answer["session"]
        for name in names:
            *parents, last = name.split(".")
            parent = at(patch, ".".join(parents)) if parents else patch
            if isinstance(parent, dict) and last in parent:
                is_transcription = wire.config.kind == "transcription"
                assert shows(at(after, name), parent[last], is_transcription=is_transcription), name
            else:
                assert at(after, name) == at(before, name), name
        before = after
