"""Read client events from text frames."""

import json
import math
from collections.abc import Callable
from typing import Any

from server.errors import ClientError
from server.protocol.wire.checks import (
    JsonObject,
    integer_at,
    invalid_choice,
    object_at,
    required,
    string_at,
)
from server.protocol.wire.client_events import (
    ClientEvent,
    InputAudioBufferAppend,
    InputAudioBufferClear,
    InputAudioBufferCommit,
    ItemCreate,
    ItemDelete,
    ItemRetrieve,
    ItemTruncate,
    OutputAudioBufferClear,
    ResponseCancel,
    ResponseCreate,
    SessionUpdate,
)

MAX_EVENT_ID_LENGTH = 512


def json_object(text: str | bytes) -> JsonObject | None:
    """Return the JSON object that a text is, None if it is not one."""
    try:
        raw: Any = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError):
        return None
    return raw if isinstance(raw, dict) else None


def decode(text: str) -> JsonObject:
    """Return the JSON object of a frame.

    Raises:
        ClientError: the frame is not a JSON object.
    """
    raw = json_object(text)
    if raw is None:
        raise ClientError(
            "Could not parse the event: expected one JSON object a frame.", code="invalid_event"
        )
    return raw


def _refuse_constant(name: str) -> None:
    # Python reads NaN and Infinity; JSON has neither.
    raise ValueError(name)


def _finite(text: str) -> float:
    # So has it no infinity, but Python reads 1e999 as one and would write it again.
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def event_id_of(raw: JsonObject) -> str | None:
    """Return the client's id for its event, None if it has none that can be echoed."""
    event_id = raw.get("event_id")
    if isinstance(event_id, str) and len(event_id) <= MAX_EVENT_ID_LENGTH:
        return event_id
    return None


def parse(raw: JsonObject) -> ClientEvent:
    """Return the typed event of a decoded frame.

    Raises:
        ClientError: the event is unknown or its own fields are wrong. What depends on the session
            is checked by the machine.
    """
    if raw.get("type") is None:
        raise ClientError("The 'type' field is missing.", code="invalid_event")
    kind = string_at(raw["type"], "type")
    if raw.get("event_id") is not None:
        string_at(raw["event_id"], "event_id", max_length=MAX_EVENT_ID_LENGTH)
    if kind not in _PARSERS:
        raise invalid_choice(kind, "type", tuple(_PARSERS))
    return _PARSERS[kind](raw, event_id_of(raw))


def _session_update(raw: JsonObject, event_id: str | None) -> ClientEvent:
    return SessionUpdate(event_id, object_at(required(raw, "session", ""), "session"))


def _transcription_update(raw: JsonObject, event_id: str | None) -> ClientEvent:
    # Beta's name; here the session's type says the same, and is told to a session of another kind.
    session = object_at(required(raw, "session", ""), "session")
    return SessionUpdate(event_id, {**session, "type": "transcription"})


def _append(raw: JsonObject, event_id: str | None) -> ClientEvent:
    return InputAudioBufferAppend(event_id, string_at(required(raw, "audio", ""), "audio"))


def _item_create(raw: JsonObject, event_id: str | None) -> ClientEvent:
    item = object_at(required(raw, "item", ""), "item")
    return ItemCreate(event_id, item, _optional_string(raw, "previous_item_id"))


def _item_retrieve(raw: JsonObject, event_id: str | None) -> ClientEvent:
    return ItemRetrieve(event_id, _item_id(raw))


def _item_delete(raw: JsonObject, event_id: str | None) -> ClientEvent:
    return ItemDelete(event_id, _item_id(raw))


def _item_truncate(raw: JsonObject, event_id: str | None) -> ClientEvent:
    end_ms = required(raw, "audio_end_ms", "")
    if isinstance(end_ms, float) and math.isfinite(end_ms):
        # Browsers count played time in fractions.
        end_ms = round(end_ms)
    return ItemTruncate(
        event_id,
        _item_id(raw),
        integer_at(required(raw, "content_index", ""), "content_index", low=0),
        integer_at(end_ms, "audio_end_ms", low=0),
    )


def _response_create(raw: JsonObject, event_id: str | None) -> ClientEvent:
    response = raw.get("response")
    return ResponseCreate(event_id, {} if response is None else object_at(response, "response"))


def _response_cancel(raw: JsonObject, event_id: str | None) -> ClientEvent:
    return ResponseCancel(event_id, _optional_string(raw, "response_id"))


def _item_id(raw: JsonObject) -> str:
    return string_at(required(raw, "item_id", ""), "item_id")


def _optional_string(raw: JsonObject, key: str) -> str | None:
    return None if raw.get(key) is None else string_at(raw[key], key)


_Parser = Callable[[JsonObject, str | None], ClientEvent]
# In the order in which the error text lists them.
_PARSERS: dict[str, _Parser] = {
    SessionUpdate.type: _session_update,
    "transcription_session.update": _transcription_update,
    InputAudioBufferAppend.type: _append,
    InputAudioBufferCommit.type: lambda _, event_id: InputAudioBufferCommit(event_id),
    InputAudioBufferClear.type: lambda _, event_id: InputAudioBufferClear(event_id),
    OutputAudioBufferClear.type: lambda _, event_id: OutputAudioBufferClear(event_id),
    ItemCreate.type: _item_create,
    ItemRetrieve.type: _item_retrieve,
    ItemTruncate.type: _item_truncate,
    ItemDelete.type: _item_delete,
    ResponseCreate.type: _response_create,
    ResponseCancel.type: _response_cancel,
}
