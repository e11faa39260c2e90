"""What providers say, and what is none of it."""

import base64
import json
from typing import Any

import pytest

from server.telephony.messages import (
    MAX_MESSAGE_CHARS,
    Key,
    Mark,
    Media,
    MediaFormat,
    MessageError,
    Other,
    Started,
    Stopped,
    Writer,
    read,
)

# As the two documentations have them.
TWILIO_START = {
    "event": "start",
    "sequenceNumber": "1",
    "start": {
        "accountSid": "AC1",
        "streamSid": "MZ1",
        "callSid": "CA1",
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"FirstName": "Jane"},
    },
    "streamSid": "MZ1",
}
TELNYX_START = {
    "event": "start",
    "sequence_number": "1",
    "stream_id": "32DE",
    "start": {
        "call_control_id": "v2:T02",
        "from": "+13122010094",
        "to": "+13122123456",
        "client_state": "aGF2",
        "custom_parameters": {"customer_id": "c"},
        "media_format": {"encoding": "L16", "sample_rate": 16000, "channels": 1},
    },
}


def test_start() -> None:
    """Both forms of it."""
    assert read(json.dumps(TWILIO_START), "twilio") == Started(
        "MZ1", "CA1", MediaFormat("PCMU", 8_000), {"FirstName": "Jane"}
    )
    assert read(json.dumps(TELNYX_START), "telnyx") == Started(
        "32DE",
        "v2:T02",
        MediaFormat("L16", 16_000),
        {"from": "+13122010094", "to": "+13122123456", "customer_id": "c"},
    )


def test_the_others() -> None:
    """Sound, keys, marks, the end, and what asks for nothing."""
    payload = base64.b64encode(b"\xff\x7f").decode()
    media = {"track": "inbound", "chunk": "2", "timestamp": "5", "payload": payload}
    assert _read(event="media", media=media) == Media(b"\xff\x7f", 2, 5)
    assert _read(event="media", media={"payload": payload}) == Media(b"\xff\x7f", None, None)
    assert _read(event="media", media=media | {"track": "outbound"}) == Other("media")
    assert _read(event="dtmf", dtmf={"track": "inbound_track", "digit": "#"}) == Key("#")
    assert _read(event="mark", mark={"name": "m1"}) == Mark("m1")
    assert _read(event="stop", stop={}) == Stopped()
    assert _read(event="connected", protocol="Call") == Other("connected")
    assert _read(event="error", payload={"code": 100}) == Other("error", '{"code": 100}')


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON"),
        ("[" * 5_000, "not JSON"),
        ("[]", "not an object"),
        ('{"event": 1}', "not an object"),
        ("x" * (MAX_MESSAGE_CHARS + 1), "65537 characters"),
        ('{"event": "media"}', "no object 'media'"),
        ('{"event": "media", "media": {}}', "no 'payload'"),
        ('{"event": "media", "media": {"payload": "*"}}', "not base64"),
        ('{"event": "media", "media": {"payload": "\u00fc"}}', "not base64"),
        ('{"event": "mark", "mark": {"name": ""}}', "'name' is not a text"),
        ('{"event": "dtmf", "dtmf": {"digit": "12"}}', "'12' is not a key"),
        ('{"event": "start"}', "no object 'start'"),
    ],
)
def test_what_cannot_be_read(text: str, reason: str) -> None:
    """It is refused by name."""
    with pytest.raises(MessageError, match=reason):
        read(text, "twilio")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mediaFormat": {"encoding": "OPUS", "sampleRate": 16000}}, "'OPUS' at 16000"),
        ({"mediaFormat": {"encoding": "PCMU", "sampleRate": True}}, "'PCMU' at True"),
        ({"mediaFormat": {"encoding": "PCMU", "sampleRate": 8000, "channels": 2}}, "2 channels"),
        ({"customParameters": []}, "custom parameters"),
        ({"customParameters": {"a": 1}}, "'a' is not text"),
        ({"customParameters": {"a": "b" * 500}}, "'a' is not text of at most 500"),
        ({"customParameters": {f"{n}": "" for n in range(33)}}, "at most 32"),
        ({"callSid": "x" * 257}, "'callSid'"),
    ],
)
def test_starts_that_cannot_be(change: dict[str, Any], reason: str) -> None:
    """Other formats, and more of its own than a call may have."""
    start = {**TWILIO_START, "start": {**TWILIO_START["start"], **change}}  # type: ignore[dict-item]
    with pytest.raises(MessageError, match=reason):
        read(json.dumps(start), "twilio")


def test_what_is_written() -> None:
    """Each provider finds its stream by its own name."""
    writer = Writer("twilio", "MZ1")
    assert json.loads(writer.media(b"ab")) == {
        "event": "media",
        "streamSid": "MZ1",
        "media": {"payload": "YWI="},
    }
    assert json.loads(Writer("telnyx", "S").mark("m1")) == {
        "event": "mark",
        "stream_id": "S",
        "mark": {"name": "m1"},
    }
    assert json.loads(writer.clear()) == {"event": "clear", "streamSid": "MZ1"}


def _read(**message: Any) -> object:
    return read(json.dumps(message), "twilio")
