"""Read the audio that client events carry, as base64."""

import base64
import binascii

from server.errors import ClientError
from server.protocol.wire.checks import JsonObject

# The API's limit for one append, decoded.
_MAX_APPEND_BYTES = 15 * 1024 * 1024
_BASE64_PIECE_CHARS = 1 << 20  # a multiple of four


def _decoded(text: str) -> bytes:
    """Decode base64 in pieces; Python runs no other thread while it decodes one."""
    try:
        return b"".join(
            base64.b64decode(text[start : start + _BASE64_PIECE_CHARS], validate=True)
            for start in range(0, len(text), _BASE64_PIECE_CHARS)
        )
    except binascii.Error:
        compact = text.encode("ascii").translate(None, b" \t\n\r\v\f").rstrip(b"=").decode("ascii")
        padded = compact + "=" * (-len(compact) % 4)
        if padded == text:
            raise
        return _decoded(padded)


def carried_audio(item: JsonObject) -> list[tuple[str, str]]:
    """Return the base64 of each audio part of a raw item, with the part's path."""
    content = item.get("content")
    parts = content if isinstance(content, list) else []
    return [
        (part["audio"], f"item.content[{index}].audio")
        for index, part in enumerate(parts)
        if isinstance(part, dict)
        and part.get("type") == "input_audio"
        and isinstance(part.get("audio"), str)
    ]


def decode_base64(text: str, path: str) -> bytes:
    """Return the bytes; missing padding and line breaks are forgiven.

    Raises:
        ClientError: it is not base64, or too much.
    """
    try:
        data = _decoded(text)
    except (binascii.Error, ValueError):
        raise ClientError(
            f"Invalid '{path}': expected base64-encoded audio.", code="invalid_value", param=path
        ) from None
    if len(data) > _MAX_APPEND_BYTES:
        raise ClientError(
            f"Invalid '{path}': too much audio. Expected at most {_MAX_APPEND_BYTES} bytes, but "
            f"got {len(data)} instead.",
            code="invalid_value",
            param=path,
        )
    return data
