"""Make ephemeral keys that every server with the same secret knows, without telling one another.

A key is what it stands for, and a signature: `ek_` and, in base64url, a deflated JSON array and its
HMAC-SHA256 (RFC 2104). A server that finds the signature good knows the rest from the key itself,
and goes on as if it had made it. Nothing in a key is hidden from who holds it.

What servers do not tell one another is which sessions are open and which keys were revoked: both
hold on one server. What revokes keys on all of them is a larger epoch in their settings.
"""

import base64
import binascii
import hmac
import json
import math
import secrets
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import time

from server.errors import ClientError, OverloadedError
from server.protocol.settings.config import SessionConfig
from server.protocol.wire.checks import JsonObject
from server.transport.envelope import bad_key
from server.transport.ephemeral import KEY_PREFIX, EphemeralKey

MAX_KEY_CHARS = 4_096
"""Of a key: it goes in a header, and 8 KiB are what proxies take of one."""

_MAX_PAYLOAD_BYTES = 256 * 1_024
_DIGEST = "sha256"
_DIGEST_BYTES = 32
_ID_BYTES = 12
# What else is signed with the same secret is no key.
_PURPOSE = b"parley ephemeral key 1\0"


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """Say what a key stands for.

    Attributes:
        id: that no other key has.
        epoch: in which it was made.
        expires_at: Unix time in seconds.
        max_sessions: that may be open with it at once, on each server.
        is_bound: whether its sessions keep their instructions and functions.
        has_model: whether the model was named when it was made.
        model: that its sessions say they have.
        issuer: name of the API key by which it was made, empty without one.
        session: what its sessions begin with, as it was asked for; it was checked.
    """

    id: str
    epoch: int
    expires_at: int
    max_sessions: int
    is_bound: bool
    has_model: bool
    model: str
    issuer: str
    session: JsonObject


class Signer:
    """Write keys and read them.

    Args:
        secrets_: the first signs; a key that any of them signed is good.
    """

    def __init__(self, secrets_: Sequence[str]) -> None:
        self._secrets = [secret.encode() for secret in secrets_]

    def signed(self, facts: KeyFacts) -> str:
        """Write a key; see `MAX_KEY_CHARS` for what is too long."""
        flags = facts.is_bound + 2 * facts.has_model
        fields = [facts.id, facts.epoch, facts.expires_at, facts.max_sessions, flags]
        fields += [facts.model, facts.issuer, facts.session]
        payload = zlib.compress(json.dumps(fields, separators=(",", ":")).encode(), 9)
        digest = hmac.digest(self._secrets[0], _PURPOSE + payload, _DIGEST)
        return KEY_PREFIX + base64.urlsafe_b64encode(payload + digest).decode().rstrip("=")

    def facts(self, value: str) -> KeyFacts | None:
        """Read a key; None for what none of the secrets has signed."""
        text = value.removeprefix(KEY_PREFIX)
        if not value.startswith(KEY_PREFIX) or len(value) > MAX_KEY_CHARS:
            return None
        try:
            data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (ValueError, binascii.Error):
            return None
        payload, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
        # All are compared, in constant time: the answer's timing tells nothing.
        good = [
            hmac.compare_digest(hmac.digest(secret, _PURPOSE + payload, _DIGEST), digest)
            for secret in self._secrets
        ]
        if not any(good):
            return None
        # What follows is our own.
        fields = json.loads(zlib.decompressobj().decompress(payload, _MAX_PAYLOAD_BYTES))
        id_, epoch, expires_at, max_sessions, flags, model, issuer, session = fields
        return KeyFacts(
            id_,
            epoch,
            expires_at,
            max_sessions,
            bool(flags & 1),
            bool(flags & 2),
            model,
            issuer,
            session,
        )


class SignedKeys:
    """Make keys, and find those that any server with the same secret has made.

    Args:
        max_keys: whose sessions are counted here, and that are known to be revoked.
        signer: writes and reads them.
        epoch: keys of an earlier one are no keys any more.
        read: makes of what was asked for what sessions begin with.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        max_keys: int,
        signer: Signer,
        epoch: int,
        read: Callable[[JsonObject], SessionConfig],
        clock: Callable[[], float] = time,
    ) -> None:
        self._max_keys = max_keys
        self._signer = signer
        self._epoch = epoch
        self._read = read
        self._clock = clock
        self._keys: dict[str, EphemeralKey] = {}  # that were used here, by their ids
        self._revoked: dict[str, int] = {}  # id → when it would have expired

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
        """Make a key; nothing is kept of it. Takes what `EphemeralKeys.issue` does.

        Raises:
            ClientError: the session is too long for a key.
        """
        facts = KeyFacts(
            secrets.token_urlsafe(_ID_BYTES),
            self._epoch,
            math.ceil(self._clock()) + ttl_s,
            max_sessions,
            is_bound,
            has_model,
            config.model,
            issuer,
            session or {"type": config.kind},
        )
        value = self._signer.signed(facts)
        if len(value) > MAX_KEY_CHARS:
            raise ClientError(
                f"The session is too long for a key that carries it: the key would have "
                f"{len(value)} characters, and {MAX_KEY_CHARS} are taken. Shorten its instructions "
                "and functions, or send them in a session.update.",
                code="session_too_long",
                param="session",
            )
        return _key(value, facts, config)

    def find(self, value: str) -> EphemeralKey | None:
        """Return the key, None if there is none, or it has expired or was revoked.

        Raises:
            RefusedError: it is good, but this server is set up differently from the one that made
                it, and cannot have its session.
        """
        facts = self._signer.facts(value)
        if facts is None or facts.epoch < self._epoch or facts.expires_at <= self._clock():
            return None
        if facts.id in self._revoked:
            return None
        key = self._keys.get(facts.id)
        if key is None:
            try:
                config = replace(self._read(facts.session), model=facts.model)
            except ClientError as error:
                raise bad_key(
                    f"The session of this ephemeral key cannot be had here: {error}"
                ) from None
            self._make_room()
            key = self._keys[facts.id] = _key(value, facts, config)
        return key

    def revoke(self, value: str) -> bool:
        """Take a key back on this server, and end its sessions here; False if there is none.

        Raises:
            OverloadedError: too many keys are revoked that have not expired yet.
        """
        facts = self._signer.facts(value)
        if facts is None or facts.id in self._revoked:
            return False
        key = self._keys.pop(facts.id, None)
        is_good = facts.epoch >= self._epoch and facts.expires_at > self._clock()
        if is_good:
            self._remember(facts)
        if key is not None:
            key.is_revoked = True
            for end in [*key.ends]:
                end()
        return is_good or (key is not None and bool(key.ends))

    def _remember(self, facts: KeyFacts) -> None:
        if len(self._revoked) >= self._max_keys:
            now_s = self._clock()
            self._revoked = {id_: at for id_, at in self._revoked.items() if at > now_s}
        if len(self._revoked) >= self._max_keys:
            raise OverloadedError(f"{self._max_keys} revoked keys have not expired yet")
        self._revoked[facts.id] = facts.expires_at

    def _make_room(self) -> None:
        """Forget keys with which nothing is open: they say themselves what they are."""
        if len(self._keys) >= self._max_keys:
            self._keys = {id_: key for id_, key in self._keys.items() if key.ends}


def _key(value: str, facts: KeyFacts, config: SessionConfig) -> EphemeralKey:
    return EphemeralKey(
        value,
        facts.expires_at,
        config,
        facts.has_model,
        facts.max_sessions,
        facts.is_bound,
        facts.issuer,
    )
