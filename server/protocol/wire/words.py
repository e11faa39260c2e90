"""Find the words of the user that client events carry, and put others in their place."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TypeVar

from server.protocol.wire.checks import JsonObject
from server.protocol.wire.client_events import ItemCreate, ResponseCreate

_Carrying = TypeVar("_Carrying", ItemCreate, ResponseCreate)
# Source: Realtime API reference, conversation items: type of a part → where its words stand.
_WORDS = {"input_text": "text", "input_audio": "transcript"}


@dataclass(frozen=True, slots=True)
class CarriedWords:
    """Hold words as a client sent them.

    Attributes:
        path: of them, such as "item.content[1].text".
        text: the words.
    """

    path: str
    text: str


def carried_words(event: ItemCreate | ResponseCreate) -> list[CarriedWords]:
    """Return the words in an event that are the user's, in order."""
    return [
        CarriedWords(path, part[key])
        for part, key, path in _places(event)
        if isinstance(part.get(key), str)
    ]


def with_words(event: _Carrying, words: Mapping[str, str]) -> _Carrying:
    """Return an event with other words of the user.

    Args:
        event: that carries words.
        words: to be put in, by their paths.
    """
    # Only containers are copied: strings, such as a part's sound, stay what they are.
    if isinstance(event, ItemCreate):
        changed = replace(event, item=deepcopy(event.item))
    else:
        changed = replace(event, response=deepcopy(event.response))
    for part, key, path in _places(changed):
        part[key] = words.get(path, part.get(key))
    return changed


def _places(event: ItemCreate | ResponseCreate) -> Iterator[tuple[JsonObject, str, str]]:
    """Yield (part, key of its words, path) of each part of the user's."""
    items = {"item": event.item} if isinstance(event, ItemCreate) else _input_items(event)
    for place, item in items.items():
        content = item.get("content") if item.get("role") == "user" else None
        for index, part in enumerate(content if isinstance(content, list) else ()):
            # What an item is made of is checked by whoever takes it; here it may be anything.
            kind = part.get("type") if isinstance(part, dict) else None
            if isinstance(kind, str) and kind in _WORDS:
                key = _WORDS[kind]
                yield part, key, f"{place}.content[{index}].{key}"


def _input_items(event: ResponseCreate) -> dict[str, JsonObject]:
    given = event.response.get("input")
    return {
        f"response.input[{index}]": item
        for index, item in enumerate(given if isinstance(given, list) else ())
        if isinstance(item, dict)
    }
