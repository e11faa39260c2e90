"""Write what a provider does with a call: TwiML, and TeXML, which is Telnyx' form of it.

Source: Twilio, "TwiML Voice: <Stream>" and "<Reject>" (twilio.com/docs/voice/twiml); Telnyx,
"TeXML: Stream" (developers.telnyx.com/docs/voice/programmable-voice/texml-verbs/stream).
"""

from collections.abc import Mapping
from xml.sax.saxutils import escape, quoteattr

from server.telephony.messages import MAX_PARAMETER_CHARS, Provider

MEDIA_TYPE = "application/xml"

_HEAD = '<?xml version="1.0" encoding="UTF-8"?>'
# µ-law both ways, whatever the telephone's own codec is. TeXML knows no L16.
_TELNYX = ' codec="PCMU" bidirectionalMode="rtp" bidirectionalCodec="PCMU"'
# XML cannot write these characters (XML 1.0, section 2.2).
_UNWRITABLE = dict.fromkeys([*range(9), 11, 12, *range(14, 32), 0xFFFE, 0xFFFF])


def connected(provider: Provider, url: str, parameters: Mapping[str, str]) -> str:
    """Connect a call with a stream, and hang up when the stream ends.

    Args:
        provider: who asks.
        url: `wss` address of the stream.
        parameters: that come back in the stream's `start`; those that are too long for the provider
            are left out.
    """
    written = "".join(
        f"<Parameter name={_quoted(name)} value={_quoted(value)} />"
        for name, value in parameters.items()
        if len(name) + len(value) <= MAX_PARAMETER_CHARS
    )
    more = _TELNYX if provider == "telnyx" else ""
    stream = f"<Stream url={_quoted(url)}{more}>{written}</Stream>"
    return f"{_HEAD}<Response><Connect>{stream}</Connect><Hangup /></Response>"


def refused(text: str) -> str:
    """Say a sentence and hang up; without a sentence, give a busy tone."""
    if not text:
        return f'{_HEAD}<Response><Reject reason="busy" /></Response>'
    said = escape(text.translate(_UNWRITABLE))
    return f"{_HEAD}<Response><Say>{said}</Say><Hangup /></Response>"


def _quoted(text: str) -> str:
    return quoteattr(text.translate(_UNWRITABLE))
