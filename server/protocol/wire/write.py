"""Write events as the text that clients are sent."""

import json

import msgspec

from server.protocol.wire.checks import JsonObject

_ENCODER = msgspec.json.Encoder()


def encode(event: JsonObject) -> str:
    """Return an event's JSON, without spaces: programs read it, dozens a second.

    A frame of 80 ms of audio is 5 KB of base64; it takes 2 µs, where `json` takes 13.
    """
    try:
        return _ENCODER.encode(event).decode()
    except UnicodeEncodeError:
        # Half a surrogate pair, as a tool or a text model may return. UTF-8 has no such thing,
        # JSON has: "\ud800" (RFC 8259, section 8.2).
        return json.dumps(event, separators=(",", ":"))
