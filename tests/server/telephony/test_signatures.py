"""Who is believed."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from server.telephony.signatures import TelnyxVerifier, is_twilio, twilio_signature

URL = "https://example.com/myapp.php?foo=1&bar=2"
FORM = [("CallSid", "CA1234567890ABCDE"), ("Caller", "+14158675309"), ("Digits", "1234")]
FORM += [("From", "+14158675309"), ("To", "+18005551212")]


def test_twilios_own_example() -> None:
    """The one of its documentation and of the tests of its libraries."""
    signature = twilio_signature("12345", "https://mycompany.com/myapp.php?foo=1&bar=2", FORM)
    assert signature == "RSOYDt4T1cUTdK1PDd93/VVr8B8="


def test_twilio() -> None:
    """Any of the tokens, with the port or without; nothing else."""
    signed = twilio_signature("token", URL, FORM)
    assert is_twilio(signed, ("old", "token"), URL, FORM)
    assert is_twilio(signed, ("token",), URL, FORM[::-1])
    with_port = twilio_signature("token", URL.replace(".com", ".com:443"), FORM)
    assert is_twilio(with_port, ("token",), URL, FORM)
    other = URL.replace(".com", ".com:8443")
    assert is_twilio(twilio_signature("token", other), ("token",), other)
    assert not is_twilio(signed, ("token",), other, FORM)
    assert not is_twilio(signed, (), URL, FORM)
    assert not is_twilio(signed, ("token",), URL, FORM[1:])
    assert not is_twilio(signed, ("token",), URL + "&x=1", FORM)
    for wrong in (None, "", "\u00fc", signed[:-1]):
        assert not is_twilio(wrong, ("token",), URL, FORM)


def test_telnyx() -> None:
    """A signature over timestamp and body, not too old, and once."""
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    public = base64.b64encode(key.public_key().public_bytes_raw()).decode()
    now = [1_000.0]
    verifier = TelnyxVerifier(public, 300, lambda: now[0])

    def signed(stamp: str, body: bytes) -> str:
        return base64.b64encode(key.sign(stamp.encode() + b"|" + body)).decode()

    good = signed("1000", b"a=1")
    assert verifier.why_not(good, "1000", b"a=1") is None
    assert verifier.why_not(good, "1000", b"a=1") == "it was sent before"
    now[0] = 1_300.0
    assert verifier.why_not(good, "1000", b"a=1") == "it was sent before"
    now[0] = 1_301.0
    assert verifier.why_not(good, "1000", b"a=1") == "its timestamp is more than 300 s off"
    assert verifier.why_not(signed("1602", b""), "1602", b"") is not None, "nor from the future"
    assert verifier.why_not(signed("1301", b"a=1"), "1301", b"a=2") == "its signature is wrong"
    assert verifier.why_not(signed("1301", b"a=1"), "1302", b"a=1") == "its signature is wrong"
    for wrong in ("*", "AAAA", "\u00fc"):
        assert verifier.why_not(wrong, "1301", b"") == "its signature is wrong"
    assert verifier.why_not(None, "1301", b"") == verifier.why_not("x", None, b"")
    for stamp in ("-1", "1e3", "\u0661", "1" * 13):
        reason = verifier.why_not(good, stamp, b"a=1")
        assert reason == "its timestamp is not a number of seconds"


def test_no_key() -> None:
    """What is not 32 bytes is refused."""
    with pytest.raises(ValueError, match="32"):
        TelnyxVerifier(base64.b64encode(b"short").decode(), 300, lambda: 0.0)
