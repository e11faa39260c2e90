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
        # Most packets move nothing. A handle of the loop stays in its heap after it was cancelled,
        # so it is not made for nothing.
        if time_s == self._time_s:
            return
        self.cancel()
        if time_s is not None:
            self._time_s = time_s
            self._handle = self._loop.call_at(time_s, self._on_time)

    def cancel(self) -> None:
        """Ring no more, until it is set again."""
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._time_s = None

    def _on_time(self) -> None:
        self._handle = self._time_s = None
        self._ring()
