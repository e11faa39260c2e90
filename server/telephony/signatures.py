"""Tell whether a request comes from the provider: Twilio's and Telnyx's signatures."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

TWILIO_HEADER = "x-twilio-signature"
TELNYX_HEADER = "telnyx-signature-ed25519"
TELNYX_TIME_HEADER = "telnyx-timestamp"
TELNYX_TOKEN_HEADER = "x-telnyx-streaming-auth-token"  # noqa: S105 - a header's name

_PORTS = {"https": 443, "wss": 443, "http": 80, "ws": 80}


def twilio_signature(token: str, url: str, parameters: Sequence[tuple[str, str]] = ()) -> str:
    """Return what Twilio signs a request with: HMAC-SHA1 in base64.

    Args:
        token: of the account.
        url: as Twilio asked for it, with its query.
        parameters: of a form; none for a WebSocket.

    Source: Twilio, "Security", validating requests (twilio.com/docs/usage/security); that the
    handshake of a stream is signed the same way, over its `wss` address: "Media Streams
    Configuration" and twilio-agent-connect-python, pull request 16.
    """
    # Names in order, each with its value right behind it. A name that comes twice has each of its
    # values once, in order, as Twilio's own libraries have it.
    text = url + "".join(name + value for name, value in sorted(set(parameters)))
    digest = hmac.digest(token.encode(), text.encode(), hashlib.sha1)
    return base64.b64encode(digest).decode()


def is_twilio(
    given: str | None,
    tokens: Sequence[str],
    url: str,
    parameters: Sequence[tuple[str, str]] = (),
) -> bool:
    """Say whether one of the tokens has signed a request."""
    # Compared as bytes: what a header has may be no ASCII, and `compare_digest` refuses such text.
    offered = (given or "").encode()
    # Twilio signs some addresses with their port, and others without.
    known = [
        twilio_signature(token, each, parameters) for token in tokens for each in _with_port(url)
    ]
    return any(hmac.compare_digest(offered, each.encode()) for each in known)


def _with_port(url: str) -> list[str]:
    """Return an address with and without the default port of its scheme."""
    parts = urlsplit(url)
    port, host = _PORTS[parts.scheme], parts.hostname or ""
    if parts.port not in (None, port):
        return [url]
    bare = f"[{host}]" if ":" in host else host
    return [parts._replace(netloc=netloc).geturl() for netloc in (bare, f"{bare}:{port}")]


class TelnyxVerifier:
    """Check webhooks of Telnyx, each once.

    Source: Telnyx, callbacks: `telnyx-timestamp` and `telnyx-signature-ed25519`, an Ed25519
    signature (RFC 8032) of `timestamp|payload` in base64. Its own libraries allow 300 s.

    Args:
        public_key: 32 bytes in base64.
        tolerance_s: how far a timestamp may be off.
        clock: Unix time in seconds.

    Raises:
        ValueError: the key is not one.
    """

    def __init__(self, public_key: str, tolerance_s: int, clock: Callable[[], float]) -> None:
        self._key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key))
        self._tolerance_s = tolerance_s
        self._clock = clock
        self._seen: dict[bytes, float] = {}  # signature → until when it could be sent again

    def why_not(self, signature: str | None, timestamp: str | None, body: bytes) -> str | None:
        """Return why a request is not trusted, None if it is; a repeated request is not."""
        if not signature or not timestamp:
            return "it is not signed"
        if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
            return "its timestamp is not a number of seconds"
        now_s = self._clock()
        if abs(now_s - int(timestamp)) > self._tolerance_s:
            return f"its timestamp is more than {self._tolerance_s} s off"
        try:
            given = base64.b64decode(signature, validate=True)
            self._key.verify(given, timestamp.encode() + b"|" + body)
        except (binascii.Error, ValueError, InvalidSignature):
            return "its signature is wrong"
        # Only valid signatures are kept, so strangers cannot fill this.
        self._seen = {each: end_s for each, end_s in self._seen.items() if end_s >= now_s}
        if given in self._seen:
            return "it was sent before"
        self._seen[given] = int(timestamp) + self._tolerance_s
        return None
