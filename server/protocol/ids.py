"""Make the identifiers that the protocol hands out."""

import secrets
import string
from typing import Protocol

# Clients replay our ids, and a replayed id may have at most 32 characters: "event_" + 21 fits.
_RANDOM_CHARS = 21
_ALPHABET = string.ascii_letters + string.digits


class Ids(Protocol):
    """Make identifiers that are unique within a server."""

    def new(self, prefix: str) -> str:
        """Return a fresh identifier that starts with `prefix` and an underscore."""
        ...


class RandomIds:
    """Make identifiers nobody can guess, such as `item_x3…`."""

    def new(self, prefix: str) -> str:
        """Return a fresh identifier that starts with `prefix` and an underscore."""
        return f"{prefix}_{''.join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_CHARS))}"
