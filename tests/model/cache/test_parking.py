"""Who is idle for longest gives way, and comes back as it was."""

from __future__ import annotations

import pytest

from model.cache.parking import Parking, with_room
from model.errors import OutOfPagesError
from model.metrics import EngineMetrics


class Places:
    """So many places for what slots remember, each a number."""

    def __init__(self, num_places: int) -> None:
        self.held: dict[int, int] = {}
        self._num_places = num_places

    def snapshot(self, slot: int) -> int:
        """Copy it."""
        return self.held[slot]

    def restore(self, slot: int, memory: int) -> None:
        """Put it back, if there is a place."""
        if len(self.held) >= self._num_places:
            raise OutOfPagesError("all are taken")
        self.held[slot] = memory

    def reset(self, slot: int) -> None:
        """Free the place."""
        self.held.pop(slot, None)


def test_the_longest_idle_gives_way_and_comes_back_as_it_was() -> None:
    """The example of the module: two places, three conversations."""
    places, metrics = Places(2), EngineMetrics()
    parking = Parking(places, metrics)
    for slot in (0, 1):
        places.restore(slot, 100 + slot)
        parking.touch([slot])
    with pytest.raises(OutOfPagesError):
        places.restore(2, 102)
    assert parking.give_way(keep=[2])
    assert (0 in parking, len(parking), places.held) == (True, 1, {1: 101})
    places.restore(2, 102)
    parking.touch([2])
    with_room(lambda: parking.bring(0), lambda: parking.give_way(keep=[0]))
    assert places.held == {2: 102, 0: 100}
    assert (0 in parking, 1 in parking) == (False, True)
    assert (metrics.parks, metrics.unparks) == (2, 1)


def test_who_is_to_stay_does_not_give_way() -> None:
    """Where nobody else is left, there is no room, and it is said."""
    places = Places(1)
    parking = Parking(places, EngineMetrics())
    places.restore(0, 100)
    parking.touch([0])
    assert not parking.give_way(keep=[0])
    with pytest.raises(OutOfPagesError):
        with_room(lambda: places.restore(1, 101), lambda: parking.give_way(keep=[0, 1]))
    assert places.held == {0: 100}


def test_a_slot_that_was_emptied_is_nobodys() -> None:
    """What its conversation left behind in host memory is gone, and it gives no way."""
    places = Places(2)
    parking = Parking(places, EngineMetrics())
    for slot in (0, 1):
        places.restore(slot, slot)
        parking.touch([slot])
    parking.give_way(keep=[1])
    for slot in (0, 1):
        parking.forget(slot)
    assert len(parking) == 0
    assert not parking.give_way(keep=[])
    parking.bring(0)
    assert places.held == {1: 1}
