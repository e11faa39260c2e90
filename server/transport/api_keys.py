"""Know the API keys of a server, and what each may do."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from server.config.server import ALL_SCOPES, KeyLimits, KeyScope, NamedKey
from server.session.accounts import Account

_PREFIX = "sk-parley-"
_KEY_BYTES = 24


def made_key() -> str:
    """Return a new key: 192 random bits, too many to be guessed from a plain hash of it."""
    return _PREFIX + secrets.token_hex(_KEY_BYTES)


def hashed(key: str) -> str:
    """Return what the configuration has in a key's place: its SHA-256 in hexadecimal."""
    return hashlib.sha256(key.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Be one key, without the key itself.

    Attributes:
        digest: its SHA-256 in hexadecimal.
        scopes: what it may do.
        account: what it has used.
    """

    digest: str
    scopes: frozenset[KeyScope]
    account: Account


class ApiKeys:
    """Find keys.

    Args:
        plain: keys as they are, which may do everything; they are called `key-1`, `key-2` and so
            on.
        named: keys by their hashes.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        plain: Sequence[str] = (),
        named: Sequence[NamedKey] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        every = frozenset(ALL_SCOPES)
        self._keys = [
            ApiKey(hashed(key), every, Account(f"key-{number}", KeyLimits(), clock))
            for number, key in enumerate(plain, 1)
        ]
        self._keys += [
            ApiKey(key.sha256, frozenset(key.scopes), Account(key.name, key.limits, clock))
            for key in named
        ]
        self._accounts = {key.account.name: key.account for key in self._keys}

    def __bool__(self) -> bool:
        """Say whether there are any; without, everyone is welcome."""
        return bool(self._keys)

    @property
    def accounts(self) -> list[Account]:
        """Return the accounts of all keys."""
        return [*self._accounts.values()]

    def find(self, key: str | None) -> ApiKey | None:
        """Return the key that was sent, None if it is none of ours."""
        given = hashed(key or "")
        # All of them are compared, in constant time: the answer's timing tells nothing.
        # Digests and not keys are compared: they have the same length, whatever was sent.
        found = [known for known in self._keys if hmac.compare_digest(given, known.digest)]
        return found[0] if found else None

    def account(self, name: str) -> Account | None:
        """Return the account of a name, None without one: a key made elsewhere may have another."""
        return self._accounts.get(name)
