"""Read client events from text frames."""

import json
import math
import secrets
from collections.abc import Callable
from typing import Any

from server.errors import ClientError
from server.protocol.wire.audio import decode_base64
from server.protocol.wire.checks import (
    MAX_TEXT_CHARS,
    JsonObject,
    integer_at,
    invalid_choice,
    is_text,
    object_at,
    refuse_oversized,
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

MAX_EVENT_ID_LENGTH = 512  # Realtime API reference, client events, event_id


# An event without its sound and pictures: longer ones are refused unread. Instructions and the
# schemas of a hundred functions fit.
MAX_EVENT_CHARS = 256 * 1024
# A string that is longer may be sound or a picture, and is not copied letter by letter.
_LONG_CHARS = MAX_TEXT_CHARS
# It stands for a long string while the rest is read; nobody can guess it.
_MARK = secrets.token_hex(16)


# A worked example of a long frame. A client appends 10 MiB of base64:
#
#     {"type": "input_audio_buffer.append", "audio": "UklGR...(10 MiB)..."}
#
# `_set_aside` finds the long string by its quotes, keeps it apart, and leaves
#
#     {"type": "input_audio_buffer.append", "audio": "3f9c...0"}
#
# which is parsed in microseconds. `_put_back` puts the sound in the place of its mark. Anything
# long that does not stand under "audio" is refused before it costs anything.


def json_object(text: str | bytes) -> JsonObject | None:
    """Return the JSON object that a text is, None if it is not one."""
    try:
        raw: Any = _DECODER.decode(text if isinstance(text, str) else text.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return raw if isinstance(raw, dict) else None


def decode(text: str, *, max_text_chars: int = MAX_TEXT_CHARS) -> JsonObject:
    """Return the JSON object of a frame, which is not larger than anybody needs.

    A frame over `MAX_EVENT_CHARS` can only be one that carries sound or pictures: its long strings
    are set aside before anything is parsed, what is left has to keep to the bound, and a long
    string may stand where sound or a picture does only. Setting aside is a search for quotes, so
    that 24 MiB of `[],` are refused in a few milliseconds.

    Raises:
        ClientError: the frame is not a JSON object, or too large, see `refuse_oversized`; then
            the error has the event, unless the frame as a whole was too long to be read.
    """
    sounds: list[str] = []
    if len(text) > MAX_EVENT_CHARS:
        text = _set_aside(text, sounds)
    raw = json_object(text)
    if raw is None:
        raise ClientError(
            "Could not parse the event: expected one JSON object a frame.", code="invalid_event"
        )
    try:
        refuse_oversized(raw, max_text_chars=max_text_chars)
        if sounds:
            raw = _put_back(raw, sounds)
            refuse_oversized(raw, max_text_chars=max_text_chars)
    except ClientError as error:
        error.event = raw  # it has an id, which the refusal names, and a type
        raise
    return raw


def _set_aside(text: str, sounds: list[str]) -> str:
    """Return a JSON text with marks in place of its long strings, which are added to `sounds`.

    Raises:
        ClientError: it is too large all the same.
    """
    kept: list[str] = []
    num_chars = at = 0
    while num_chars <= MAX_EVENT_CHARS:
        opening = text.find('"', at)
        closing = _closing_quote(text, opening) if opening >= 0 else -1
        if closing < 0:
            if num_chars + len(text) - at > MAX_EVENT_CHARS:
                break
            return "".join([*kept, text[at:]])
        if closing - opening <= _LONG_CHARS:
            # Beyond the bound, what is kept need not be.
            kept.append(text[at : min(closing + 1, at + MAX_EVENT_CHARS + 1)])
            num_chars += closing + 1 - at
        else:
            kept.append(text[at : min(opening, at + MAX_EVENT_CHARS + 1)])
            kept.append(f'"{_MARK}{len(sounds)}"')
            num_chars += opening - at
            sounds.append(_unescaped(text[opening + 1 : closing]))
        at = closing + 1
    raise _too_large()


def _closing_quote(text: str, opening: int) -> int:
    """Return where a string ends that begins at `opening`; -1 if it does not.

    Raises:
        ClientError: it is long and holds quotes or many backslashes: no sound, and too large.
    """
    closing = text.find('"', opening + 1)
    while closing > 0:
        first = closing
        while text[first - 1] == "\\":
            first -= 1
            if closing - first > _LONG_CHARS:
                raise _too_large()
        if (closing - first) % 2 == 0:
            return closing
        if closing - opening > _LONG_CHARS:
            raise _too_large()
        closing = text.find('"', closing + 1)
    return -1


def _too_large() -> ClientError:
    return ClientError(
        f"The event is too large: expected at most {MAX_EVENT_CHARS} characters besides sound "
        "and images.",
        code="invalid_event",
    )


def _unescaped(inner: str) -> str:
    r"""Return the string that is written so in JSON, if it is base64.

    Some encoders write a slash as `\/`. Anything else that is escaped is not base64, and is left
    as it is: so it is refused as sound, and a text of this length is refused anyway.
    """
    return inner.replace("\\/", "/") if "\\" in inner else inner


def _put_back(value: Any, sounds: list[str]) -> Any:  # Any: JSON
    """Return a JSON value with the strings in place of their marks."""
    match value:
        case dict():
            return {_put_back(k, sounds): _put_back(inner, sounds) for k, inner in value.items()}
        case list():
            return [_put_back(inner, sounds) for inner in value]
        case str() if value.startswith(_MARK):
            return sounds[int(value.removeprefix(_MARK))]
        case _:
            return value


def _refuse_constant(name: str) -> None:
    # Python reads NaN and Infinity; JSON has neither.
    raise ValueError(name)


def _finite(text: str) -> float:
    # So has it no infinity, but Python reads 1e999 as one and would write it again.
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


# `json.loads` makes one for every call that has rules of its own.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)


def refuse_half_characters(raw: JsonObject, text: str) -> None:
    """Refuse an event that has half a surrogate pair anywhere, which is no text and no UTF-8.

    JSON can escape one. Nothing behind this point has to expect it, in whatever free-form value.

    Args:
        raw: the event as decoded.
        text: that it was decoded of.

    Raises:
        ClientError: saying where.
    """
    is_short = len(text) <= MAX_EVENT_CHARS  # to search 20 MiB would take a tenth of a second
    if is_short and "\\ud" not in text and "\\uD" not in text:
        return
    waiting: list[tuple[str, Any]] = [("", raw)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, dict):
            for key, inner in value.items():
                if not is_text(key):
                    raise _half_character(path or "the event", "a key")
                waiting.append((f"{path}.{key}" if path else key, inner))
        elif isinstance(value, list):
            waiting += [(f"{path}[{index}]", inner) for index, inner in enumerate(value)]
        elif isinstance(value, str) and not is_text(value):
            raise _half_character(path, "the string")


def _half_character(path: str, what: str) -> ClientError:
    return ClientError(
        f"Invalid '{path}': {what} is not valid Unicode.", code="invalid_value", param=path
    )


def event_id_of(raw: JsonObject) -> str | None:
    """Return the client's id for its event, None if it has none that can be echoed."""
    event_id = raw.get("event_id")
    if isinstance(event_id, str) and len(event_id) <= MAX_EVENT_ID_LENGTH and is_text(event_id):
        return event_id
    return None


def parse(raw: JsonObject) -> ClientEvent:
    """Return the typed event of a decoded frame.

    Raises:
        ClientError: the event is unknown or its own fields are wrong. What depends on the session
            is checked by the machine.
    """
    # Source: Realtime API reference, client events: `type` is required, `event_id` is optional and
    # comes back in the error that the event causes.
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
    audio = string_at(required(raw, "audio", ""), "audio")
    return InputAudioBufferAppend(event_id, decode_base64(audio, "audio"))


def _item_create(raw: JsonObject, event_id: str | None) -> ClientEvent:
    item = object_at(required(raw, "item", ""), "item")
    return ItemCreate(event_id, item, _optional_string(raw, "previous_item_id"))


def _item_retrieve(raw: JsonObject, event_id: str | None) -> ClientEvent:
    return ItemRetrieve(event_id, _item_id(raw))


def _item_delete(raw: JsonObject, event_id: str | None) -> ClientEvent:
    return ItemDelete(event_id, _item_id(raw))


def _item_truncate(raw: JsonObject, event_id: str | None) -> ClientEvent:
    # Source: Realtime API reference, client events, conversation.item.truncate.
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
