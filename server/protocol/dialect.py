"""Write server events as the JSON of one dialect.

The machine knows one vocabulary, GA's. A dialect says how each event looks on the wire and what a
client's event means in that vocabulary; it is chosen per connection.
"""

from collections.abc import Callable
from dataclasses import fields
from typing import Any, Protocol

from server.protocol.checks import JsonObject
from server.protocol.events import ErrorEvent, ServerEvent
from server.protocol.items import AudioPart, Message, TextPart
from server.protocol.response import Response, response_json
from server.protocol.session_config import SessionConfig


class Dialect(Protocol):
    """Translate between the wire and the internal vocabulary."""

    def read(self, raw: JsonObject) -> JsonObject:
        """Return a client's decoded event in the internal vocabulary.

        Raises:
            ClientError: the event does not exist in this dialect.
        """
        ...

    def write(self, event: ServerEvent, event_id: str) -> JsonObject | None:
        """Return the event's JSON object, None where the dialect has no such event."""
        ...


def error_json(event: ErrorEvent, event_id: str) -> JsonObject:
    """Write an error; it looks the same in every dialect."""
    return {
        "type": event.type,
        "event_id": event_id,
        "error": {
            "type": event.kind,
            "code": event.code,
            "message": event.message,
            "param": event.param,
            "event_id": event.client_event_id,
        },
    }


class GaDialect:
    """Speak the Realtime API as generally available."""

    def read(self, raw: JsonObject) -> JsonObject:
        """Return the event as it is: the internal vocabulary is GA's."""
        return raw

    def write(self, event: ServerEvent, event_id: str) -> JsonObject | None:
        """Return the event's JSON object."""
        if isinstance(event, ErrorEvent):
            return error_json(event, event_id)
        written: JsonObject = {"type": event.type, "event_id": event_id}
        for each in fields(event):
            written[each.name] = _ga_value(getattr(event, each.name))
        return written


def _ga_value(value: Any) -> Any:
    """Write one field; `Any` because a field holds whatever its event declares."""
    match value:
        case Message():
            return item_json(value, _ga_content)
        case TextPart() | AudioPart():
            return part_json(value)
        case Response():
            return response_json(value, [item_json(item, _ga_content) for item in value.output])
        case SessionConfig():
            return value.to_json()
        case tuple():
            return list(value)
        case _:
            return value


def item_json(item: Message, content: Callable[[TextPart | AudioPart], JsonObject]) -> JsonObject:
    """Write an item with only the keys that a message has: clients refuse others, even null."""
    return {
        "id": item.id,
        "object": "realtime.item",
        "type": "message",
        "status": item.status,
        "role": item.role,
        "content": [content(part) for part in item.content],
    }


def _ga_content(part: TextPart | AudioPart) -> JsonObject:
    """Write item content. A transcript that is not known yet is null and must be there."""
    if isinstance(part, TextPart):
        return {"type": part.type, "text": part.text}
    return {"type": part.type, "transcript": part.transcript}


def part_json(part: TextPart | AudioPart) -> JsonObject:
    """Write a response's content part: its types are not renamed as items' contents are."""
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    return {"type": "audio", "transcript": part.transcript}
