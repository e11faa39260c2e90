"""Read a client's credentials from its request, and decide whether they will do."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from server.config.server import KeyScope, is_loopback
from server.session.accounts import Account
from server.transport.api_keys import ApiKey, ApiKeys
from server.transport.envelope import RefusedError, bad_key
from server.transport.ephemeral import KEY_PREFIX, EphemeralKey, KeyBook

# Browsers cannot set headers on a WebSocket; they offer the key as a subprotocol.
_KEY_SUBPROTOCOL = "openai-insecure-api-key."
_SUBPROTOCOL = "realtime"


def offered_key(headers: Mapping[str, str], subprotocols: Sequence[str] = ()) -> str | None:
    """Return the key a client sent, None if it sent none.

    Args:
        headers: of the request, with case-insensitive names.
        subprotocols: that a WebSocket request offers.
    """
    # RFC 6750, section 2.1. Schemes are compared without case (RFC 9110, section 11.1).
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    for offer in subprotocols:
        if offer.startswith(_KEY_SUBPROTOCOL):
            return offer.removeprefix(_KEY_SUBPROTOCOL)
    # Azure's form of the API.
    return headers.get("api-key")


def check_api_key(key: str | None, api_keys: ApiKeys, scope: KeyScope | None) -> ApiKey | None:
    """Let a backend in: an ephemeral key starts sessions and does nothing else.

    Args:
        key: that was sent.
        api_keys: of the server; without any, everyone is welcome.
        scope: what is wanted; None for what every key may.

    Returns:
        The key; None where none is needed.

    Raises:
        RefusedError: the key is missing or wrong, or may not do this.
    """
    if not api_keys:
        return None
    found = api_keys.find(key)
    if found is not None:
        if scope is not None and scope not in found.scopes:
            raise RefusedError(
                403,
                f"This API key may not do this: it needs the scope '{scope}'.",
                code="insufficient_permissions",
            )
        return found
    if key is None:
        raise bad_key("Missing API key: send it as 'Authorization: Bearer KEY'.")
    if key.startswith(KEY_PREFIX):
        raise bad_key("Ephemeral keys start sessions; this needs an API key.")
    raise bad_key("Incorrect API key provided.")


@dataclass(frozen=True, slots=True)
class Admitted:
    """Say by what a session comes in.

    Attributes:
        key: the ephemeral key, None if by none.
        account: of the API key, its own or the one by which its ephemeral key was made; None where
            none is needed or it is not known here.
    """

    key: EphemeralKey | None = None
    account: Account | None = None

    @property
    def payer(self) -> str:
        """Return the name of the API key whose use it is; empty where there is none."""
        if self.account is not None:
            return self.account.name
        # Made on another server, by a key of a name that is not known here.
        return self.key.issuer if self.key is not None else ""


NOBODY = Admitted()
"""By nothing: no key is needed."""


def admitted(key: str | None, api_keys: ApiKeys, ephemeral_keys: KeyBook) -> Admitted:
    """Let a session in.

    Raises:
        RefusedError: the key is missing or wrong, has expired, or may not begin sessions.
    """
    ephemeral = None
    if key is not None and key.startswith(KEY_PREFIX):
        ephemeral = ephemeral_keys.find(key)
        # Also where no keys are needed: what the key was bound to would silently not apply.
        if ephemeral is None and api_keys.find(key) is None:
            raise bad_key("Incorrect ephemeral key provided: it is unknown or has expired.")
    if ephemeral is not None:
        return Admitted(ephemeral, api_keys.account(ephemeral.issuer))
    found = check_api_key(key, api_keys, "sessions")
    return Admitted(None, found.account if found is not None else None)


def is_welcome_origin(
    origin: str | None, host: str | None, allowed: Collection[str], *, has_keys: bool
) -> bool:
    """Say whether the sender may ask: a program, one of our own pages, or a page that is listed.

    Args:
        origin: of the page, as its browser says it.
        host: that is asked; one that the server is not known by was refused before.
        allowed: origins that are listed; if there are none, any page may that has a key.
        has_keys: whether a key is needed. A server without keys is protected by nothing but its
            loopback address, and any page in a browser on this machine can reach that.
    """
    if origin is None or origin in allowed:
        return True
    if has_keys and not allowed:
        return True
    try:
        page = urlsplit(origin)
        name = page.hostname or ""
    except ValueError:  # it is no address at all
        return False
    # The playground, whichever name it was opened by; and without keys pages of this machine.
    return page.netloc == host or (not has_keys and is_loopback(name))


def is_browser(headers: Mapping[str, str], subprotocols: Sequence[str]) -> bool:
    """Say whether a WebSocket request comes from a page, which cannot read a refused upgrade."""
    return "origin" in headers or any(offer.startswith(_KEY_SUBPROTOCOL) for offer in subprotocols)


def chosen_subprotocol(offered: Sequence[str]) -> str | None:
    """Return the subprotocol to answer with: a browser accepts only what it offered."""
    # RFC 6455, section 4.1: a client must fail the connection if it gets one that it did not offer.
    # The one that holds the key is never the answer.
    return _SUBPROTOCOL if _SUBPROTOCOL in offered else None
