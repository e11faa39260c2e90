"""An alarm rings when it is set to, not before, and not twice."""

import asyncio
from collections.abc import Callable

from server.session.alarm import Alarm


class Clock:
    """Stand still until told."""

    now_s = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


async def _running(alarm: Alarm, check: Callable[[], None]) -> None:
    """Let the alarm run through everything that is due, then check."""
    task = asyncio.create_task(alarm.run(), name="alarm")
    for _ in range(5):
        await asyncio.sleep(0)
    check()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_it_rings_once_when_its_time_has_come() -> None:
    """And again when it is set again."""
    clock, rung = Clock(), []
    alarm = Alarm(lambda: rung.append(clock()), clock)
    alarm.set(99.0)
    await _running(alarm, lambda: None)
    assert rung == [100.0]
    await _running(alarm, lambda: None)
    assert rung == [100.0]
    alarm.set(100.0)
    await _running(alarm, lambda: None)
    assert rung == [100.0, 100.0]


async def test_it_waits_for_its_time_and_may_be_moved() -> None:
    """What is set while it waits counts."""
    clock, rung = Clock(), asyncio.Event()
    alarm = Alarm(rung.set, clock)
    alarm.set(1_000.0)

    def later() -> None:
        assert not rung.is_set()

    await _running(alarm, later)
    task = asyncio.create_task(alarm.run(), name="alarm")
    await asyncio.sleep(0)
    alarm.set(100.01)
    clock.now_s = 100.02
    async with asyncio.timeout(10):
        await rung.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_it_can_be_set_to_nothing() -> None:
    """Then nothing rings."""
    clock, rung = Clock(), []
    alarm = Alarm(lambda: rung.append(1), clock)
    alarm.set(99.0)
    alarm.set(None)
    await _running(alarm, lambda: None)
    assert not rung
