"""Keep a session's instructions and functions as they were when it began.

A backend that gives an ephemeral key to a browser may want its holder to talk, and not to make
something else of the model.
"""

from collections.abc import Iterator
from typing import Any

from server.errors import ClientError
from server.protocol.settings.config import SessionConfig
from server.protocol.wire.checks import JsonObject
from server.protocol.wire.client_events import (
    ClientEvent,
    ItemCreate,
    ResponseCreate,
    SessionUpdate,
)

# What says to the model how to be and what it may do.
_KEPT = ("instructions", "tools", "tool_choice", "prompt", "delegate")


def refuse_changes(event: ClientEvent, config: SessionConfig) -> None:
    """Refuse an event that would tell the model something else; the same again is fine.

    Args:
        event: of a session whose key is bound.
        config: of the session, as it is.

    Raises:
        ClientError: it changes or adds instructions or functions.
    """
    for path, value, kept in _told(event, config):
        if value != kept:
            raise ClientError(
                f"'{path}' cannot be changed: the ephemeral key is bound to what the session began "
                "with.",
                code="session_bound",
                param=path,
            )


def _told(event: ClientEvent, config: SessionConfig) -> Iterator[tuple[str, Any, Any]]:
    """Yield what an event tells the model: path, value, and the value that is let through."""
    match event:
        case SessionUpdate(session=given):
            yield from _settings("session", given, config)
        case ResponseCreate(response=given):
            yield from _settings("response", given, config)
            for index, item in enumerate(_list(given.get("input"))):
                yield from _role(f"response.input[{index}].role", item)
        case ItemCreate(item=item):
            yield from _role("item.role", item)
        case _:
            return


def _settings(
    path: str, given: JsonObject, config: SessionConfig
) -> Iterator[tuple[str, Any, Any]]:
    now = config.to_json()
    for key in _KEPT:
        if key in given:
            yield f"{path}.{key}", given[key], now.get(key)


def _role(path: str, item: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(item, dict) and item.get("role") == "system":
        yield path, "system", None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
