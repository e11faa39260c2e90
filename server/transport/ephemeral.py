"""Keep ephemeral keys: short-lived credentials, each bound to what its sessions begin with.

A backend makes them with its own API key and hands them to browsers and devices. A key starts
sessions until it expires or is revoked, so many at once as were asked for. Sessions that were
started go on when it expires, and end when it is revoked.
"""

import contextlib
import hashlib
import math
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import time
from typing import Protocol

from server.errors import OverloadedError
from server.protocol.settings.config import SessionConfig
from server.protocol.wire.checks import JsonObject
from server.transport.envelope import bad_key

KEY_PREFIX = "ek_"
# What can be asked for, and what is given to those who do not ask, in seconds.
# Source: Realtime reference, `POST /v1/realtime/client_secrets`, `expires_after.seconds`.
MIN_TTL_S, MAX_TTL_S = 10, 7_200
DEFAULT_TTL_S = 600
# A minute is what beta's keys lasted, and its clients connect at once. Source: Realtime reference,
# `POST /v1/realtime/sessions`, `client_secret.expires_at`.
BETA_TTL_S = 60

MAX_SESSIONS = 1_000

_KEY_BYTES = 24


@dataclass(slots=True, eq=False)
class EphemeralKey:
    """Hold one key.

    Attributes:
        value: the secret itself, `ek_…`.
        expires_at: Unix time in seconds.
        config: of the sessions that it starts; its `id` and `expires_at` become each session's own.
        session: of which that was made, as it was asked for.
        has_model: True if the model was named when the key was made: the address cannot name
            another one then.
        max_sessions: that may be open at once.
        is_bound: True if its sessions may not change their instructions and functions.
        issuer: name of the API key by which it was made, empty without one.
        ends: end the sessions that are open with it.
        is_revoked: True once the key was revoked; somebody may still hold this object.
    """

    value: str = field(repr=False)
    expires_at: int
    config: SessionConfig
    session: JsonObject = field(repr=False)
    has_model: bool
    max_sessions: int = 1
    is_bound: bool = False
    issuer: str = ""
    ends: set[Callable[[], None]] = field(default_factory=set, repr=False)
    is_revoked: bool = False

    @contextlib.contextmanager
    def opened(self, end: Callable[[], None]) -> Iterator[None]:
        """Count a session while it is open.

        Args:
            end: ends it; called if the key is revoked.

        Raises:
            OverloadedError: so many are open already as may be.
            RefusedError: it was revoked since it was found.
        """
        if self.is_revoked:
            raise bad_key("The ephemeral key was revoked.")
        if len(self.ends) >= self.max_sessions:
            raise OverloadedError(f"{self.max_sessions} sessions are open with this ephemeral key")
        self.ends.add(end)
        try:
            yield
        finally:
            self.ends.discard(end)


class KeyBook(Protocol):
    """Make keys and know them: `EphemeralKeys` on one server, `SignedKeys` on several."""

    def issue(  # noqa: D102 - see `EphemeralKeys`
        self,
        config: SessionConfig,
        ttl_s: int,
        *,
        has_model: bool,
        max_sessions: int = 1,
        is_bound: bool = False,
        session: JsonObject | None = None,
        issuer: str = "",
    ) -> EphemeralKey: ...

    def find(self, value: str) -> EphemeralKey | None: ...  # noqa: D102 - see `EphemeralKeys`

    def revoke(self, value: str) -> bool: ...  # noqa: D102 - see `EphemeralKeys`


class EphemeralKeys:
    """Make keys that this process alone knows, and find those that have not expired.

    Keys are looked up by their SHA-256 digests, so the time of a look-up says nothing about a key.

    Args:
        max_keys: that may be waiting for their expiry.
        clock: Unix time in seconds.
    """

    def __init__(self, max_keys: int, clock: Callable[[], float] = time) -> None:
        self._max_keys = max_keys
        self._clock = clock
        self._keys: dict[bytes, EphemeralKey] = {}

    def __len__(self) -> int:
        """Count the keys that are kept."""
        return len(self._keys)

    def issue(
        self,
        config: SessionConfig,
        ttl_s: int,
        *,
        has_model: bool,
        max_sessions: int = 1,
        is_bound: bool = False,
        session: JsonObject | None = None,
        issuer: str = "",
    ) -> EphemeralKey:
        """Make a key.

        Args:
            config: of the sessions that it starts.
            ttl_s: how long sessions can be started with it.
            has_model: whether the request named the model.
            max_sessions: that may be open with it at once.
            is_bound: whether its sessions keep the instructions and functions that they have.
            session: of which `config` was made.
            issuer: name of the API key by which it is made.

        Raises:
            OverloadedError: too many keys have not expired yet.
        """
        if len(self._keys) >= self._max_keys:
            self._forget_expired()
        if len(self._keys) >= self._max_keys:
            raise OverloadedError(f"{self._max_keys} ephemeral keys have not expired yet")
        value = f"{KEY_PREFIX}{secrets.token_hex(_KEY_BYTES)}"
        # Rounded up: the client is never told a time at which the key is gone already.
        expires_at = math.ceil(self._clock()) + ttl_s
        session = session or {"type": config.kind}
        key = EphemeralKey(
            value, expires_at, config, session, has_model, max_sessions, is_bound, issuer
        )
        self._keys[_digest(value)] = key
        return key

    def find(self, value: str) -> EphemeralKey | None:
        """Return the key, None if there is none or it has expired."""
        # A dictionary's look-up stops at the first difference. Where two digests differ says
        # nothing about where the keys do, so nobody finds one piece by piece.
        digest = _digest(value)
        key = self._keys.get(digest)
        if key is not None and key.expires_at <= self._clock():
            # It starts nothing any more. While sessions are open with it, it can still be revoked.
            if not key.ends:
                del self._keys[digest]
            return None
        return key

    def revoke(self, value: str) -> bool:
        """Forget a key and end its sessions; False if there is no such key any more."""
        key = self._keys.pop(_digest(value), None)
        if key is None:
            return False
        # Before its sessions are ended: whoever found the key a moment ago and opens with it now is
        # refused.
        key.is_revoked = True
        for end in [*key.ends]:
            end()
        return True

    def _forget_expired(self) -> None:
        now_s = self._clock()
        self._keys = {
            digest: key
            for digest, key in self._keys.items()
            # With sessions open, a key can still be revoked.
            if key.expires_at > now_s or key.ends
        }


def _digest(value: str) -> bytes:
    return hashlib.sha256(value.encode()).digest()
