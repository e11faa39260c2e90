"""Call something at a time that moves."""

import asyncio
from collections.abc import Callable


class Timer:
    """Ring once at the time that was set last; cheaper than a task for what rings every 20 ms.

    Args:
        ring: called in the event loop; it must not raise.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._time_s: float | None = None

    def set(self, time_s: float | None) -> None:
        """Ring at this time of the loop, or not at all."""
        if time_s is None:
            self.cancel()
        elif self._handle is None or time_s < self._handle.when():
            self.cancel()
            self._time_s = time_s
            self._handle = self._loop.call_at(time_s, self._on_time)
        else:
            # Most packets put the time off. A cancelled handle of the loop stays in its heap, so no
            # new handle is made for that: the old one rings too early, and then a new one is made.
            # For example, packets every 20 ms put off what is due 100 ms after them: ten handles a
            # second, not fifty.
            self._time_s = time_s

    def cancel(self) -> None:
        """Ring no more, until it is set again."""
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._time_s = None

    def _on_time(self) -> None:
        assert self._handle is not None, "it rings"
        assert self._time_s is not None, "it is set while a handle waits"
        time_s, is_early = self._time_s, self._time_s > self._handle.when()
        self._handle = self._time_s = None
        if is_early:
            self.set(time_s)
        else:
            self._ring()
