"""Know which beginnings of conversations are remembered, and where. Pure accounting."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable


class PromptCache:
    """Give beginnings their slots; the one that was asked for the longest time ago goes first.

    Args:
        slots: of the state, for nothing else.
    """

    __slots__ = ("_by_key", "_free")

    def __init__(self, slots: Iterable[int]) -> None:
        self._free = list(slots)
        self._by_key: OrderedDict[bytes, int] = OrderedDict()

    def __len__(self) -> int:
        """Count the beginnings that are remembered."""
        return len(self._by_key)

    def get(self, key: bytes) -> int | None:
        """Return the slot that remembers `key`, None if none does."""
        slot = self._by_key.get(key)
        if slot is not None:
            self._by_key.move_to_end(key)
        return slot

    def put(self, key: bytes) -> int | None:
        """Give `key`, which is not remembered, a slot; None if there are no slots at all."""
        assert key not in self._by_key
        if not self._free and self.drop() is None:
            return None
        slot = self._by_key[key] = self._free.pop()
        return slot

    def remove(self, key: bytes) -> None:
        """Forget a beginning that is remembered."""
        self._free.append(self._by_key.pop(key))

    def drop(self) -> int | None:
        """Forget the beginning that was asked for the longest time ago; return its slot."""
        if not self._by_key:
            return None
        key, slot = next(iter(self._by_key.items()))
        self.remove(key)
        return slot
