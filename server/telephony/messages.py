"""Read and write the messages of media streams, as Twilio and Telnyx have them.

Both speak almost the same protocol: JSON in text frames, one object each, with an `event`.

    provider                               server
    connected
    start      call, format, parameters
    media      20 ms of the caller         media   a piece of the reply: it is queued and played
    mark       what is before it is over   mark    behind a piece; comes back when that is over
    dtmf       a key                       clear   play no more; queued marks come back at once
    stop

They differ in names: `streamSid` and `stream_id`, `customParameters` and `custom_parameters`.

Source: Twilio, "Media Streams - WebSocket Messages" (twilio.com/docs/voice/media-streams/
websocket-messages); Telnyx, "Stream call media over WebSocket" (developers.telnyx.com/
api-reference/websockets/stream-call-media-over-websocket).
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from server.errors import ParleyError

Provider: TypeAlias = Literal["twilio", "telnyx"]

MAX_MESSAGE_CHARS = 64 * 1024
"""Of one message. 20 ms of sound are 300 characters, or 1,300 as L16 at 24 kHz."""

MAX_PARAMETERS = 32
MAX_PARAMETER_CHARS = 500
"""Of a custom parameter, name and value together, as Twilio has it."""

_MAX_ID_CHARS = 256
_KEYS = "0123456789*#ABCDabcd"


class MessageError(ParleyError):
    """Report a message that the protocol does not have."""


@dataclass(frozen=True, slots=True)
class MediaFormat:
    """Say how sound is coded: one channel, without headers.

    Attributes:
        encoding: µ-law, A-law, or linear with 16 bits.
        rate_hz: 8,000 for both laws.
    """

    encoding: Literal["PCMU", "PCMA", "L16"] = "PCMU"
    rate_hz: int = 8_000


@dataclass(frozen=True, slots=True)
class Started:
    """The stream begins.

    Attributes:
        stream_id: that names it in every message that is sent.
        call_id: Twilio's `CA…`, Telnyx's `call_control_id`.
        format: of what is heard.
        parameters: of the call's own: what the application gave, and from and to where known.
    """

    stream_id: str
    call_id: str
    format: MediaFormat
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Media:
    """Sound of the caller.

    Attributes:
        payload: of the stream's format.
        number: of the piece, counted from 1; None if it is not said.
        time_ms: from the stream's start; None if it is not said.
    """

    payload: bytes
    number: int | None
    time_ms: int | None


@dataclass(frozen=True, slots=True)
class Key:
    """The caller has pressed a key: 0 to 9, *, #, or A to D."""

    digit: str


@dataclass(frozen=True, slots=True)
class Mark:
    """All that was sent before a mark has been played, or cleared."""

    name: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The caller has hung up, or the stream was ended otherwise."""


@dataclass(frozen=True, slots=True)
class Other:
    """A message that needs no answer: `connected`, `error`, other tracks, and kinds not known yet.

    Attributes:
        event: its name.
        detail: what an `error` says.
    """

    event: str
    detail: str = ""


Message: TypeAlias = Started | Media | Key | Mark | Stopped | Other


def read(text: str, provider: Provider) -> Message:
    """Return what a message says.

    Raises:
        MessageError: the protocol has no such message, or a value in it is impossible.
    """
    if len(text) > MAX_MESSAGE_CHARS:
        raise MessageError(f"a message has {len(text)} characters, more than {MAX_MESSAGE_CHARS}")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise MessageError("a message is not JSON") from None
    if not isinstance(message, dict) or not isinstance(message.get("event"), str):
        raise MessageError("a message is not an object with an 'event'")
    match message["event"]:
        case "media":
            return _media(_object(message, "media"))
        case "start":
            return _started(message, provider)
        case "mark":
            return Mark(_text(_object(message, "mark"), "name"))
        case "dtmf":
            return _key(_object(message, "dtmf"))
        case "stop":
            return Stopped()
        case event:
            payload = message.get("payload")
            detail = json.dumps(payload)[:200] if event == "error" else ""
            return Other(event[:64], detail)


class Writer:
    """Write messages of one stream."""

    def __init__(self, provider: Provider, stream_id: str) -> None:
        key = "streamSid" if provider == "twilio" else "stream_id"
        self._stream = {key: stream_id}

    def media(self, payload: bytes) -> str:
        """Have sound played after all that was sent before."""
        return self._text("media", media={"payload": base64.b64encode(payload).decode()})

    def mark(self, name: str) -> str:
        """Have a mark sent back when all before it is over."""
        return self._text("mark", mark={"name": name})

    def clear(self) -> str:
        """Have no more played of what was sent."""
        return self._text("clear")

    def _text(self, event: str, **more: Any) -> str:
        return json.dumps({"event": event, **self._stream, **more}, separators=(",", ":"))


def _started(message: Mapping[str, Any], provider: Provider) -> Started:
    start = _object(message, "start")
    if provider == "twilio":
        media = _object(start, "mediaFormat")
        given = {"encoding": media.get("encoding"), "rate": media.get("sampleRate")}
        custom = start.get("customParameters")
        ids = _text(message, "streamSid"), _text(start, "callSid")
    else:
        media = _object(start, "media_format")
        given = {"encoding": media.get("encoding"), "rate": media.get("sample_rate")}
        custom = start.get("custom_parameters")
        ids = _text(message, "stream_id"), _text(start, "call_control_id")
    if media.get("channels", 1) != 1:
        raise MessageError(f"a stream has {media['channels']!r} channels, and calls have one")
    facts = {name: start[name] for name in ("from", "to") if isinstance(start.get(name), str)}
    return Started(*ids, _format(given["encoding"], given["rate"]), facts | _parameters(custom))


def _format(encoding: object, rate: object) -> MediaFormat:
    match encoding, rate:
        # Twilio's only one, by its media type.
        case "audio/x-mulaw" | "PCMU", 8_000:
            return MediaFormat("PCMU")
        case "PCMA", 8_000:
            return MediaFormat("PCMA")
        case "L16", 8_000 | 16_000 | 24_000:
            assert isinstance(rate, int), "one of these three"
            return MediaFormat("L16", rate)
        case _:
            raise MessageError(
                f"a stream is {encoding!r} at {rate!r} Hz: known are PCMU and PCMA at 8000, and "
                "L16 at 8000, 16000 or 24000"
            )


def _parameters(given: object) -> dict[str, str]:
    if given is None:
        return {}
    if not isinstance(given, dict) or len(given) > MAX_PARAMETERS:
        raise MessageError(f"custom parameters are not an object of at most {MAX_PARAMETERS}")
    for name, value in given.items():
        if not isinstance(value, str) or len(name) + len(value) > MAX_PARAMETER_CHARS:
            raise MessageError(
                f"the custom parameter {name[:64]!r} is not text of at most "
                f"{MAX_PARAMETER_CHARS} characters"
            )
    return given


def _media(media: Mapping[str, Any]) -> Message:
    # With both tracks, our own sound comes back as "outbound".
    track = media.get("track", "inbound")
    if track not in ("inbound", "inbound_track"):
        return Other("media")
    payload = media.get("payload")
    if not isinstance(payload, str):
        raise MessageError("a 'media' has no 'payload'")
    try:
        data = base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        raise MessageError("a 'payload' is not base64") from None
    return Media(data, _number(media, "chunk"), _number(media, "timestamp"))


def _key(dtmf: Mapping[str, Any]) -> Key:
    digit = _text(dtmf, "digit")
    if len(digit) != 1 or digit not in _KEYS:
        raise MessageError(f"{digit[:8]!r} is not a key of a telephone")
    return Key(digit.upper())


def _object(message: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = message.get(key)
    if not isinstance(value, dict):
        raise MessageError(f"a message has no object {key!r}")
    return value


def _text(message: Mapping[str, Any], key: str) -> str:
    value = message.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_ID_CHARS:
        raise MessageError(f"{key!r} is not a text of 1 to {_MAX_ID_CHARS} characters")
    return value


def _number(message: Mapping[str, Any], key: str) -> int | None:
    """Return a count, which comes as text; None where it is not said or is none."""
    value = message.get(key)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        return int(value)
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53
    return value if is_count else None
