"""Do something at a moment that may be moved."""

import asyncio
from collections.abc import Callable


class Alarm:
    """Ring when its time has come, once for every time it is set.

    Args:
        ring: called in the event loop.
        clock: seconds that do not jump.
    """

    def __init__(self, ring: Callable[[], None], clock: Callable[[], float]) -> None:
        self._ring = ring
        self._clock = clock
        self._time_s: float | None = None
        self._moved = asyncio.Event()

    def set(self, time_s: float | None) -> None:
        """Ring at another time than before, or not at all."""
        if time_s != self._time_s:
            self._time_s = time_s
            self._moved.set()

    async def run(self) -> None:
        """Watch the time, for as long as the session lives."""
        while True:
            self._moved.clear()
            # Cleared before the time is read: a `set` that comes between the two is seen, not lost.
            wait_s = None if self._time_s is None else self._time_s - self._clock()
            if wait_s is not None and wait_s <= 0:
                self._time_s = None
                self._ring()
                continue
            try:
                async with asyncio.timeout(wait_s):
                    await self._moved.wait()
            except TimeoutError:
                continue
