"""Let one stream in for each call that a webhook was answered for.

The address of a stream ends with a ticket: what call it is for, sealed, good for a minute and once.
So a signature over that address is one that nobody can use again, and a provider that signs no
handshakes, as Telnyx, cannot be played by others.
"""

import base64
import hashlib
import json
import secrets
from collections.abc import Callable, Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from server.telephony.messages import Provider

LIFE_S = 60
"""For the stream to come. A provider opens it at once."""

EXPECTED_S = 10
"""For that stream to be waited for by a server that is about to stop."""

MAX_TICKET_CHARS = 1_024

_PURPOSE = b"parley telephony ticket 1\0"


class Tickets:
    """Make tickets, and take each once.

    Args:
        secrets_: shared by several servers, because a stream may come to another server than its
            webhook. The first one seals. Without any, tickets are valid on this server only.
        clock: Unix time in seconds.
    """

    def __init__(self, secrets_: Sequence[str], clock: Callable[[], float]) -> None:
        given = secrets_ or (secrets.token_hex(32),)
        keys = [hashlib.sha256(_PURPOSE + secret.encode()).digest() for secret in given]
        self._seal = MultiFernet([Fernet(base64.urlsafe_b64encode(key)) for key in keys])
        self._clock = clock
        self._taken: dict[str, float] = {}  # → until when it could come again
        self._expected: dict[str, float] = {}  # ticket → until when it is waited for

    def make(self, provider: Provider, call_id: str) -> str:
        """Make a ticket for a call."""
        content = json.dumps([provider, call_id]).encode()
        now_s = self._clock()
        sealed = self._seal.encrypt_at_time(content, int(now_s))
        ticket = sealed.decode().rstrip("=")
        self._expected = {each: end_s for each, end_s in self._expected.items() if end_s > now_s}
        self._expected[ticket] = now_s + EXPECTED_S
        return ticket

    @property
    def num_expected(self) -> int:
        """Count the streams that were asked for here a moment ago, and have not come."""
        now_s = self._clock()
        return sum(end_s > now_s for end_s in self._expected.values())

    def is_expected(self, ticket: str) -> bool:
        """Say whether a stream was asked for here a moment ago."""
        return self._expected.get(ticket, 0.0) > self._clock()

    def take(self, ticket: str, provider: Provider) -> str | None:
        """Return the call that a ticket is for; None if it is none, too old, or was taken."""
        if len(ticket) > MAX_TICKET_CHARS or not ticket.isascii():
            return None
        now_s = self._clock()
        try:
            sealed = ticket + "=" * (-len(ticket) % 4)
            content = self._seal.decrypt_at_time(sealed, LIFE_S, int(now_s))
        except InvalidToken:
            return None
        known, call_id = json.loads(content)
        # base64 can be written in several ways; the content has a nonce of its own, and one form.
        name = hashlib.sha256(base64.urlsafe_b64decode(sealed)).hexdigest()
        self._taken = {each: end_s for each, end_s in self._taken.items() if end_s > now_s}
        if known != provider or name in self._taken:
            return None
        self._taken[name] = now_s + LIFE_S + 1
        self._expected.pop(ticket, None)
        return str(call_id)
