"""TwiML and TeXML."""

from xml.etree import ElementTree as ET

from server.telephony.answers import connected, refused


def test_a_call_is_connected() -> None:
    """With its parameters, whatever is in them; then the provider hangs up."""
    parameters = {"name": "<\"&'>\x00", "from": "+1", "long": "x" * 500}
    answer = ET.fromstring(connected("twilio", "wss://h/v1/x", parameters))  # noqa: S314
    assert [each.tag for each in answer] == ["Connect", "Hangup"]
    (stream,) = answer[0]
    assert stream.attrib == {"url": "wss://h/v1/x"}
    assert [each.attrib for each in stream] == [
        {"name": "name", "value": "<\"&'>"},
        {"name": "from", "value": "+1"},
    ]


def test_telnyx_is_told_to_take_sound() -> None:
    """It plays nothing of what is sent unless it is told to."""
    answer = ET.fromstring(connected("telnyx", "wss://h", {}))  # noqa: S314
    assert answer[0][0].attrib == {
        "url": "wss://h",
        "codec": "PCMU",
        "bidirectionalMode": "rtp",
        "bidirectionalCodec": "PCMU",
    }


def test_a_call_is_refused() -> None:
    """By a sentence, or by a busy tone."""
    said, busy = (ET.fromstring(refused(text)) for text in ("A < B & \x07C", ""))  # noqa: S314
    assert [(each.tag, each.text) for each in said] == [("Say", "A < B & C"), ("Hangup", None)]
    assert [(each.tag, each.attrib) for each in busy] == [("Reject", {"reason": "busy"})]
