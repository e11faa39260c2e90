"""Make the identifiers that the protocol hands out."""

import os
import string
from typing import Protocol

# Source: Realtime API reference, conversation items, `id`: at most 32 characters. Ids look like
# those of the hosted service, "item_" or "resp_" and letters; clients treat them as opaque.
#
# Clients replay our ids, and a replayed id may have at most 32 characters: "event_" + 21 fits.
_RANDOM_CHARS = 21
_ALPHABET = (string.ascii_letters + string.digits).encode()
# Random byte → character. Some characters are a little likelier than others, which leaves the id
# 124 of its 125 bits, and every event needs one: drawing characters one by one costs more than all
# the rest of an audio delta.
_TABLE = bytes(_ALPHABET[byte % len(_ALPHABET)] for byte in range(256))


class Ids(Protocol):
    """Make identifiers that are unique within a server."""

    def new(self, prefix: str) -> str:
        """Return a fresh identifier that starts with `prefix` and an underscore."""
        ...


class RandomIds:
    """Make identifiers nobody can guess, such as `item_x3…`."""

    def new(self, prefix: str) -> str:
        """Return a fresh identifier that starts with `prefix` and an underscore."""
        return f"{prefix}_{os.urandom(_RANDOM_CHARS).translate(_TABLE).decode('ascii')}"
