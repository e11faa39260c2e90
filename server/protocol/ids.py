"""Make the identifiers that the protocol hands out."""

import os
import string
from typing import Protocol

# Source: Realtime API reference, conversation items, `id`: at most 32 characters. Ids look like
# those of the hosted service, "item_" or "resp_" and letters; clients treat them as opaque.
#
# Clients replay our ids, and a replayed id may have at most 32 characters: "event_" + 21 fits.
_RANDOM_CHARS = 21
_AT_ONCE = 32
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

    def __init__(self) -> None:
        self._waiting: list[str] = []  # without a prefix

    def new(self, prefix: str) -> str:
        """Return a fresh identifier that starts with `prefix` and an underscore."""
        if not self._waiting:
            self._waiting = _random_texts()
        return f"{prefix}_{self._waiting.pop()}"


def _random_texts() -> list[str]:
    # A system call for each would cost more than all the rest of it.
    text = os.urandom(_RANDOM_CHARS * _AT_ONCE).translate(_TABLE).decode("ascii")
    return [text[start : start + _RANDOM_CHARS] for start in range(0, len(text), _RANDOM_CHARS)]
