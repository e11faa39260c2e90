"""Give sessions their slots: rows of the model's and the codec's state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar


class HasSession(Protocol):
    """A row of every state, and whose it is."""

    @property
    def index(self) -> int:
        """Return the row."""
        ...

    @property
    def session_id(self) -> str:
        """Name the session."""
        ...


S = TypeVar("S", bound=HasSession)


class SlotTable(Generic[S]):
    """Know which session has which slot.

    Args:
        num_slots: how many there are.
    """

    __slots__ = ("_by_session", "_free")

    def __init__(self, num_slots: int) -> None:
        self._free = list(range(num_slots))[::-1]
        self._by_session: dict[str, S] = {}

    def __len__(self) -> int:
        """Count the sessions that have a slot."""
        return len(self._by_session)

    def __iter__(self) -> Iterator[S]:
        """Go through the taken slots, in the order of their indices."""
        return iter(sorted(self._by_session.values(), key=lambda slot: slot.index))

    @property
    def is_full(self) -> bool:
        """Say whether no slot is free."""
        return not self._free

    def get(self, session_id: str) -> S | None:
        """Return the session's slot, None if it has none."""
        return self._by_session.get(session_id)

    # The lowest free slot, so that busy slots are neighbours: their memory is then read as one
    # piece.
    def take(self, session_id: str, make: Callable[[int], S]) -> S:
        """Give a session the lowest free slot, made of its index; there must be one."""
        assert session_id not in self._by_session
        slot = make(self._free.pop())
        self._by_session[session_id] = slot
        return slot

    def release(self, slot: S) -> None:
        """Take a slot back."""
        del self._by_session[slot.session_id]
        self._free.append(slot.index)
        self._free.sort(reverse=True)
