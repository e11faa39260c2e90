"""Time that passes only when somebody waits."""

import asyncio

from server.client.client import Clock


class FakeTime:
    """A clock at `now_s`; sleeping moves it on and lets the other tasks run."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    async def sleep(self, duration_s: float) -> None:
        """Let time pass."""
        self.now_s += duration_s
        await asyncio.sleep(0)

    def clock(self) -> Clock:
        """Return this time for a client."""
        return Clock(lambda: self.now_s, self.sleep)
