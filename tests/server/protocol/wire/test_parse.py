"""Frames become events, or are refused in the API's words."""

import json
from typing import Any

import pytest

from server.errors import ClientError
from server.protocol.wire.checks import JsonObject
from server.protocol.wire.client_events import (
    InputAudioBufferCommit,
    ItemTruncate,
    ResponseCreate,
    SessionUpdate,
)
from server.protocol.wire.parse import MAX_EVENT_CHARS, decode, event_id_of, parse


def _error(raw: Any) -> ClientError:
    with pytest.raises(ClientError) as caught:
        parse(raw)
    return caught.value


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '"x"', '{"a":NaN}', '{"a":1e999}', "[" * 100_000]
)
def test_what_is_no_event(text: str) -> None:
    """Not JSON, not an object, or a number that JSON does not have."""
    with pytest.raises(ClientError) as caught:
        decode(text)
    assert caught.value.code == "invalid_event"


def test_events_need_a_type() -> None:
    """A missing one and one that does not exist are told apart."""
    error = _error({})
    assert (error.code, error.message, error.param) == (
        "invalid_event",
        "The 'type' field is missing.",
        None,
    )
    error = _error({"type": "scooby.dooby.doo"})
    assert (error.code, error.param) == ("invalid_value", "type")
    assert error.message.startswith(
        "Invalid value: 'scooby.dooby.doo'. Supported values are: 'session.update', "
    )
    assert error.message.endswith("and 'response.cancel'.")


def test_an_event_id_is_short_text_or_not_there() -> None:
    """Null is as good as absent, and one that cannot be echoed is not."""
    parsed = parse({"type": "input_audio_buffer.commit", "event_id": None})
    assert parsed == InputAudioBufferCommit(None)
    assert _error({"type": "input_audio_buffer.commit", "event_id": 7}).code == "invalid_type"
    long = {"type": "input_audio_buffer.commit", "event_id": "x" * 513}
    assert _error(long).code == "string_above_max_length"
    assert event_id_of(long) is None
    assert event_id_of({"event_id": "x" * 512}) == "x" * 512


def test_betas_transcription_update_is_an_update_of_that_kind() -> None:
    """Whether it fits the session is for the session to say."""
    raw = {"type": "transcription_session.update", "session": {"include": None}}
    assert parse(raw) == SessionUpdate(None, {"include": None, "type": "transcription"})
    assert _error({"type": "transcription_session.update"}).param == "session"


@pytest.mark.parametrize("response", [{}, {"response": None}, {"response": {}}])
def test_a_response_may_be_bare(response: dict[str, Any]) -> None:
    """Absent, null or empty: all ask for the session's own."""
    assert parse({"type": "response.create", **response}) == ResponseCreate(None, {})


def test_browsers_count_in_fractions() -> None:
    """Played time is rounded, not refused."""
    raw = {"type": "conversation.item.truncate", "item_id": "i", "content_index": 0}
    assert parse({**raw, "audio_end_ms": 1500.6}) == ItemTruncate(None, "i", 0, 1501)
    assert _error({**raw, "audio_end_ms": -1}).code == "integer_below_min_value"
    assert _error(raw).param == "audio_end_ms"


_SOUND = "AB+/" * 50_000


@pytest.mark.parametrize(
    "event",
    [
        {"type": "input_audio_buffer.append", "audio": _SOUND},
        {"audio": _SOUND, "type": "input_audio_buffer.append", "event_id": 'a "quoted" \\ id \\'},
        {
            "type": "conversation.item.create",
            "item": {"content": [{"audio": _SOUND}, {"text": '"' * 999}, {"audio": _SOUND * 2}]},
        },
    ],
)
@pytest.mark.parametrize("slash", ["/", "\\/"])
def test_sound_is_set_aside_and_put_back(event: JsonObject, slash: str) -> None:
    """A long frame that carries sound is the same object as if it was parsed at once."""
    text = json.dumps(event).replace("/", slash) if slash != "/" else json.dumps(event)
    padding = " " * (MAX_EVENT_CHARS // 2)
    assert len(text + padding) > MAX_EVENT_CHARS
    assert decode(text) == event
    assert decode(text + padding) == event


@pytest.mark.parametrize(
    ("event", "code", "param"),
    [
        (
            {"type": "x", "item": {"content": [{"text": "w" * 65_537}]}},
            "string_above_max_length",
            "item.content[0].text",
        ),
        (
            {"type": "session.update", "session": {"instructions": "w" * 400_000}},
            "string_above_max_length",
            "session.instructions",
        ),
        ({"type": "x", "list": ["w" * 65_537]}, "string_above_max_length", "list[0]"),
        ({"type": "x", "list": [[]] * 20_001}, "invalid_value", None),
        ({"type": "x", "list": ["ab"] * 90_000}, "invalid_event", None),
    ],
)
def test_what_is_too_much(event: JsonObject, code: str, param: str | None) -> None:
    """Each has its error, and strings have the path where they are."""
    with pytest.raises(ClientError) as caught:
        decode(json.dumps(event))
    assert caught.value.code == code
    if param is not None:
        assert caught.value.param == param


def test_what_is_too_deep() -> None:
    """An event may be nested as deeply as a free-form value in it, and no deeper."""
    for depth, is_refused in ((60, False), (200, True)):
        text = '{"type": "x", "session": ' + "[" * depth + "]" * depth + "}"
        if is_refused:
            with pytest.raises(ClientError, match="nested too deeply"):
                decode(text)
        else:
            assert decode(text)["type"] == "x"
