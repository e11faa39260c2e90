"""Find the pictures that client events carry, and check how they are written."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from server.errors import ClientError
from server.protocol.wire.checks import (
    JsonObject,
    choice_at,
    is_image_place,
    required,
    string_at,
)
from server.protocol.wire.client_events import ItemCreate, ResponseCreate

DETAILS = ("auto", "low", "high")
_DATA_URL = re.compile(r"data:image/(?:png|jpe?g|webp);base64,", re.IGNORECASE)
_SHOWN_CHARS = 32


@dataclass(frozen=True, slots=True)
class CarriedImage:
    """Hold a picture as a client sent it.

    Attributes:
        path: of the part, such as "item.content[1]".
        detail: one of `DETAILS`.
        encoded: the file, in base64.
    """

    path: str
    detail: str
    encoded: str = field(repr=False)


def carried_images(event: ItemCreate | ResponseCreate) -> list[CarriedImage]:
    """Return the pictures of an event, in order.

    Raises:
        ClientError: one is not written as it must be; nothing is said of the file itself.
    """
    return [_checked(part, path) for part, path in _image_parts(event)]


def _image_parts(event: ItemCreate | ResponseCreate) -> Iterator[tuple[JsonObject, str]]:
    if isinstance(event, ItemCreate):
        yield from _of_item(event.item, "item")
        return
    given = event.response.get("input")
    for index, item in enumerate(given if isinstance(given, list) else ()):
        if isinstance(item, dict):
            yield from _of_item(item, f"response.input[{index}]")


def _of_item(item: JsonObject, path: str) -> Iterator[tuple[JsonObject, str]]:
    content = item.get("content")
    for index, part in enumerate(content if isinstance(content, list) else ()):
        if isinstance(part, dict) and part.get("type") == "input_image":
            yield part, f"{path}.content[{index}]"


def _checked(part: JsonObject, path: str) -> CarriedImage:
    url_path = f"{path}.image_url"
    assert is_image_place(url_path), "a frame may be as long there as a picture is"
    detail = part.get("detail")
    if detail is None:
        detail = "auto"
    choice_at(detail, f"{path}.detail", DETAILS)
    url = string_at(required(part, "image_url", path), url_path)
    head = _DATA_URL.match(url)
    if head is None:
        shown = url if len(url) <= _SHOWN_CHARS else f"{url[:_SHOWN_CHARS]}…"
        raise ClientError(
            f"Invalid '{url_path}': expected a base64 data URL of a PNG, JPEG or WebP image, such "
            f"as 'data:image/png;base64,…', but got '{shown}' instead. Nothing is fetched.",
            code="invalid_value",
            param=url_path,
        )
    return CarriedImage(path, detail, url[head.end() :])
