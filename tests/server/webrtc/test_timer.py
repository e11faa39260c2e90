"""A timer that moves: it rings at the time that was set last, and once."""

import asyncio

from server.webrtc.timer import Timer


class Bell:
    """A timer and a loop whose time is ours: what is due by a time is called in order."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.rang_s: list[float] = []
        self.handles: list[asyncio.TimerHandle] = []
        self.num_made = 0
        self.timer = Timer(lambda: self.rang_s.append(self.now_s))
        self.timer._loop = self  # type: ignore[assignment]

    def call_at(self, when: float, callback: object) -> asyncio.TimerHandle:
        """Be the loop."""
        loop = asyncio.get_running_loop()
        handle = asyncio.TimerHandle(when, callback, (), loop)  # type: ignore[arg-type]
        self.handles.append(handle)
        self.num_made += 1
        return handle

    def pass_to(self, time_s: float) -> None:
        """Let time pass."""
        while due := [each for each in self.handles if each.when() <= time_s]:
            first = min(due, key=lambda each: each.when())
            self.handles.remove(first)
            self.now_s = max(self.now_s, first.when())
            if not first.cancelled():
                first._run()
        self.now_s = time_s


async def test_it_rings_at_the_time_that_was_set_last() -> None:
    """Put off, brought forward, or not at all."""
    bell = Bell()
    bell.timer.set(1.0)
    bell.timer.set(3.0)
    bell.timer.set(2.0)
    bell.pass_to(5.0)
    assert bell.rang_s == [2.0]
    bell.timer.set(9.0)
    bell.timer.set(6.0)
    bell.pass_to(10.0)
    assert bell.rang_s == [2.0, 6.0]
    bell.timer.set(11.0)
    bell.timer.set(None)
    bell.pass_to(12.0)
    assert bell.rang_s == [2.0, 6.0]


async def test_what_is_put_off_again_and_again_takes_few_handles() -> None:
    """Packets every 20 ms put off what is due 100 ms after them: ten handles a second, not 50."""
    bell = Bell()
    for packet in range(500):
        bell.pass_to(packet * 0.02)
        bell.timer.set(packet * 0.02 + 0.1)
    assert bell.rang_s == []
    bell.pass_to(20.0)
    assert bell.rang_s == [499 * 0.02 + 0.1]
    assert bell.num_made < 130
