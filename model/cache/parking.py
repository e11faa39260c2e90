"""Decide whose memory waits in host memory while there are not enough pages for everybody.

One rule for all models: the conversation that has had no step for longest gives way, and comes back
when it is to have one. Example, with pages for two conversations of three:

    step of 0, step of 1      both are in pages
    step of 2                 pages run out: 0 is copied to host memory, and its pages are free
    step of 0                 pages run out: 1 gives way; 0 is copied back and goes on

Nothing that a model computes depends on it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from typing import Generic, Protocol, TypeVar

from model.errors import OutOfPagesError
from model.metrics import EngineMetrics

_M = TypeVar("_M")
_T = TypeVar("_T")


class Slots(Protocol[_M]):
    """Hold memory in slots, which take pages."""

    def snapshot(self, slot: int) -> _M:
        """Copy what a slot remembers to host memory."""
        ...

    def restore(self, slot: int, memory: _M) -> None:
        """Let a slot remember what was copied.

        Raises:
            OutOfPagesError: there are not enough pages; nothing has changed.
        """
        ...

    def reset(self, slot: int) -> None:
        """Leave nothing in a slot, and give its pages back."""
        ...


class Parking(Generic[_M]):
    """Hold the memory of conversations that gave way, and know who is next.

    Args:
        slots: where conversations are that have pages.
        metrics: where it is counted.
    """

    def __init__(self, slots: Slots[_M], metrics: EngineMetrics) -> None:
        self._slots = slots
        self._metrics = metrics
        self._parked: dict[int, _M] = {}
        # Slots that have had a step since they were empty, the longest idle first.
        self._used: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        """Count the conversations that wait in host memory."""
        return len(self._parked)

    def __contains__(self, slot: int) -> bool:
        """Say whether a slot's conversation waits in host memory."""
        return slot in self._parked

    def touch(self, slots: Iterable[int]) -> None:
        """Note that conversations have a step now."""
        for slot in slots:
            self._used[slot] = None
            self._used.move_to_end(slot)

    def forget(self, slot: int) -> None:
        """Know nothing of a slot any more."""
        self._parked.pop(slot, None)
        self._used.pop(slot, None)

    def bring(self, slot: int) -> None:
        """Bring a conversation back to its slot, if it gave way.

        Raises:
            OutOfPagesError: there are not enough pages; nothing has changed.
        """
        if slot not in self._parked:
            return
        self._slots.restore(slot, self._parked[slot])
        del self._parked[slot]
        self.touch([slot])
        self._metrics.unparks += 1

    def give_way(self, keep: Collection[int]) -> bool:
        """Move the conversation that is idle for longest to host memory.

        Args:
            keep: slots whose conversations stay.

        Returns:
            False if there is none.
        """
        for slot in self._used:
            if slot not in keep:
                self._parked[slot] = self._slots.snapshot(slot)
                self._slots.reset(slot)
                del self._used[slot]
                self._metrics.parks += 1
                return True
        return False


def with_room(act: Callable[[], _T], give_way: Callable[[], bool]) -> _T:
    """Do what takes pages; as long as there are not enough, somebody gives way.

    Args:
        act: raises `OutOfPagesError` and leaves all as it was, where there are not enough.
        give_way: frees some pages; False if there is nothing left to free.

    Raises:
        OutOfPagesError: everybody else has given way already.
    """
    while True:
        try:
            return act()
        except OutOfPagesError:
            if not give_way():
                raise
