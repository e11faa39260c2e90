"""Write server events as the JSON of one dialect, and read client events from it.

The machine knows one vocabulary, GA's. A dialect says how each event looks on the wire and what a
client's event means in that vocabulary; it is chosen per connection.
"""

from dataclasses import fields
from typing import Any, Protocol, get_args

from server.protocol.dialects.beta_session import refuse_beta_keys
from server.protocol.items.item_json import item_json, part_json
from server.protocol.items.items import (
    AudioPart,
    Item,
    TextPart,
)
from server.protocol.response import Response, response_json
from server.protocol.server_events import NOT_SENT, ErrorEvent, ServerEvent
from server.protocol.settings.config import SessionConfig
from server.protocol.wire.checks import JsonObject

# Looked up for every event, and `fields` takes its time.
SENT_FIELDS = {
    kind: tuple(each.name for each in fields(kind) if each.metadata != NOT_SENT)
    for kind in get_args(ServerEvent)
}
"""Which fields of an event clients are sent."""


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
        """Return the event as it is, without what the internal vocabulary has for beta alone."""
        match raw:
            case {"type": "session.update", "session": dict() as session} if "type" in session:
                refuse_beta_keys(session, "session")
            case {"type": "response.create", "response": dict() as response}:
                kept = {key: value for key, value in response.items() if key != "temperature"}
                return {**raw, "response": kept}
        return raw

    def write(self, event: ServerEvent, event_id: str) -> JsonObject | None:
        """Return the event's JSON object."""
        if isinstance(event, ErrorEvent):
            return error_json(event, event_id)
        written: JsonObject = {"type": event.type, "event_id": event_id}
        for name in SENT_FIELDS[type(event)]:
            written[name] = _value(getattr(event, name))
        return written


def _value(value: Any) -> Any:
    """Write one field; `Any` because a field holds whatever its event declares."""
    match value:
        case str() | int():
            return value  # most fields; what follows takes its time
        case _ if isinstance(value, Item):
            return item_json(value)
        case TextPart() | AudioPart():
            return part_json(value)
        case Response():
            return response_json(value, [item_json(item) for item in value.output])
        case SessionConfig():
            return value.to_json()
        case tuple():
            return list(value)
        case _:
            return value
