"""Read a client's credentials from its request, and decide whether they will do."""

import hmac
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from server.config import is_loopback

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


def is_own_origin(origin: str | None) -> bool:
    """Say whether a page of this machine, or no page at all, makes a request.

    A server without keys is protected by nothing but its loopback address, and any page in a
    browser on this machine can reach that.
    """
    return origin is None or is_loopback(urlsplit(origin).hostname or "")


def chosen_subprotocol(offered: Sequence[str]) -> str | None:
    """Return the subprotocol to answer with: a browser accepts only what it offered."""
    return _SUBPROTOCOL if _SUBPROTOCOL in offered else None
