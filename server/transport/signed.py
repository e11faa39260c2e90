"""Make ephemeral keys that every server with the same secret knows, without telling one another.

A key is what it stands for, deflated and sealed by Fernet: AES-128 in CBC mode, then HMAC-SHA256
over all of it. A server that finds the signature good knows the rest from the key itself, and goes
on as if it had made it. It is encrypted as well, since a session may have what its user must not
see, such as the token for a server of tools.

What servers do not tell one another is which sessions are open and which keys were revoked: both
hold on one server. What revokes keys on all of them is a larger epoch in their settings.
"""

import base64
import hashlib
import json
import math
import secrets
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import time

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from server.errors import ClientError, OverloadedError
from server.protocol.settings.config import SessionConfig
from server.protocol.wire.checks import JsonObject
from server.transport.envelope import bad_key
from server.transport.ephemeral import KEY_PREFIX, EphemeralKey

MAX_KEY_CHARS = 4_096
"""Of a key: it goes in a header, and 8 KiB are what proxies take of one."""

_ID_BYTES = 12
# Whatever else is made of the same secret has nothing to do with these.
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
        model: name that its sessions tell their clients.
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
    safety_identifier: str = ""


class Signer:
    """Write keys and read them.

    Args:
        secrets_: the first signs; a key that any of them signed is good.
    """

    def __init__(self, secrets_: Sequence[str]) -> None:
        self._seal = MultiFernet([Fernet(_seal_key(secret)) for secret in secrets_])

    def signed(self, facts: KeyFacts) -> str:
        """Write a key; see `MAX_KEY_CHARS` for what is too long."""
        # Two bits in a number: bound and with a model is 3.
        flags = facts.is_bound + 2 * facts.has_model
        fields = [facts.id, facts.epoch, facts.expires_at, facts.max_sessions, flags]
        fields += [facts.model, facts.issuer, facts.session, facts.safety_identifier]
        # A list and not an object, since the names would be in every key. Then Fernet adds 57 bytes
        # and padding, and base64 makes four characters of three bytes: 4,096 characters hold about
        # 3,000 bytes of compressed session.
        payload = zlib.compress(json.dumps(fields, separators=(",", ":")).encode(), 9)
        # Subprotocols, by which browsers send keys, have no `=`.
        return KEY_PREFIX + self._seal.encrypt(payload).decode().rstrip("=")

    def facts(self, value: str) -> KeyFacts | None:
        """Read a key; None for what none of the secrets has signed."""
        token = value.removeprefix(KEY_PREFIX)
        is_like_one = value.startswith(KEY_PREFIX) and len(value) <= MAX_KEY_CHARS
        if not (is_like_one and token.isascii()):
            return None
        try:
            payload = self._seal.decrypt(token + "=" * (-len(token) % 4))
        except InvalidToken:
            return None
        # What follows is our own, and came from a body of at most `server.max_body_bytes`.
        fields = json.loads(zlib.decompress(payload))
        id_, epoch, expires_at, max_sessions, flags, model, issuer, session, *rest = fields
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
            rest[0] if rest else "",
        )


def _seal_key(secret: str) -> bytes:
    # Secrets are long and random (`server.key_secrets`): they need no slow hash.
    return base64.urlsafe_b64encode(hashlib.sha256(_PURPOSE + secret.encode()).digest())


class SignedKeys:
    """Make keys, and find those that any server with the same secret has made.

    Args:
        max_keys: whose sessions are counted here, and that are known to be revoked.
        signer: writes and reads them.
        epoch: keys of an earlier one are no keys any more.
        read: makes what sessions begin with of what was asked for, and of the name of the model for
            which it was, empty for none.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        max_keys: int,
        signer: Signer,
        epoch: int,
        read: Callable[[JsonObject, str], SessionConfig],
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
            config.safety_identifier,
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
            RefusedError: the key is valid, but this server is configured differently from the one
                that made it, and cannot begin its session.
        """
        facts = self._signer.facts(value)
        # The signature was checked first. What an unsigned text says of its own age is never looked
        # at.
        if facts is None or facts.epoch < self._epoch or facts.expires_at <= self._clock():
            return None
        if facts.id in self._revoked:
            return None
        key = self._keys.get(facts.id)
        if key is None:
            try:
                config = replace(
                    self._read(facts.session, facts.model if facts.has_model else ""),
                    safety_identifier=facts.safety_identifier,
                )
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
        # A revoked key is kept until it would have expired, and no longer: after that it is refused
        # anyway.
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
        """Forget keys without open sessions. Such a key can be read again from its own text."""
        if len(self._keys) >= self._max_keys:
            self._keys = {id_: key for id_, key in self._keys.items() if key.ends}


def _key(value: str, facts: KeyFacts, config: SessionConfig) -> EphemeralKey:
    return EphemeralKey(
        value,
        facts.expires_at,
        config,
        facts.session,
        facts.has_model,
        facts.max_sessions,
        facts.is_bound,
        facts.issuer,
    )
