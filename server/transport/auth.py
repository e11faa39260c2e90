"""Read a client's credentials from its request, and decide whether they will do."""

import hmac
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from server.config import is_loopback
from server.transport.envelope import bad_key
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
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    for offer in subprotocols:
        if offer.startswith(_KEY_SUBPROTOCOL):
            return offer.removeprefix(_KEY_SUBPROTOCOL)
    # Azure's form of the API.
    return headers.get("api-key")


def is_allowed(key: str | None, api_keys: Sequence[str]) -> bool:
    """Say whether a key is one of ours; without any of ours, everyone is welcome."""
    if not api_keys:
        return True
    given = (key or "").encode()
    # All of them are compared, in constant time: the answer's timing tells nothing.
    return sum(hmac.compare_digest(given, known.encode()) for known in api_keys) > 0


def check_api_key(key: str | None, api_keys: Sequence[str]) -> None:
    """Let a backend in: an ephemeral key starts sessions and does nothing else.

    Raises:
        RefusedError: the key is missing or wrong.
    """
    if is_allowed(key, api_keys):
        return
    if key is None:
        raise bad_key("Missing API key: send it as 'Authorization: Bearer KEY'.")
    if key.startswith(KEY_PREFIX):
        raise bad_key("Ephemeral keys start sessions; this needs an API key.")
    raise bad_key("Incorrect API key provided.")


def admitted(
    key: str | None, api_keys: Sequence[str], ephemeral_keys: KeyBook
) -> EphemeralKey | None:
    """Let a session in; returns the ephemeral key by which it comes, None if by none.

    Raises:
        RefusedError: the key is missing or wrong, or has expired.
    """
    if key is None or not key.startswith(KEY_PREFIX):
        check_api_key(key, api_keys)
        return None
    ephemeral = ephemeral_keys.find(key)
    if ephemeral is None and not (api_keys and is_allowed(key, api_keys)):
        # Also where no keys are needed: what the key was bound to would silently not apply.
        raise bad_key("Incorrect ephemeral key provided: it is unknown or has expired.")
    return ephemeral


def is_own_origin(origin: str | None) -> bool:
    """Say whether a page of this machine, or no page at all, makes a request.

    A server without keys is protected by nothing but its loopback address, and any page in a
    browser on this machine can reach that.
    """
    if origin is None:
        return True
    try:
        return is_loopback(urlsplit(origin).hostname or "")
    except ValueError:  # it is no address at all
        return False


def is_browser(headers: Mapping[str, str], subprotocols: Sequence[str]) -> bool:
    """Say whether a WebSocket request comes from a page, which cannot read a refused upgrade."""
    return "origin" in headers or any(offer.startswith(_KEY_SUBPROTOCOL) for offer in subprotocols)


def chosen_subprotocol(offered: Sequence[str]) -> str | None:
    """Return the subprotocol to answer with: a browser accepts only what it offered."""
    return _SUBPROTOCOL if _SUBPROTOCOL in offered else None
