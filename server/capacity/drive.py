"""Let callers talk to an engine's core, tick by tick, the way the engine's own thread does.

The clock decides what is measured. On the real one, callers speak at the pace of speech and the
engine gets the time that the machine gives it. On one that skips idle time, the same conversations
take only as long as the engine computes, and all its deadlines stay where they were.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from model.engine.core import EngineCore
from model.messages import Output
from server.capacity.caller import Caller


class Clock(Protocol):
    """Tell the time in seconds, and let it pass."""

    def now_s(self) -> float:
        """Return the time; it never goes back."""
        ...

    def sleep_until(self, at_s: float) -> None:
        """Return at that time, or at once if it is over."""
        ...


class RealClock:
    """The monotonic clock of this machine, which engines go by."""

    @staticmethod
    def now_s() -> float:
        """Return the time."""
        return time.monotonic()

    @staticmethod
    def sleep_until(at_s: float) -> None:
        """Wait."""
        time.sleep(max(0.0, at_s - time.monotonic()))


class SkippingClock:
    """A clock that runs while somebody computes, and jumps over what they would wait.

    Args:
        running_s: runs while somebody computes: `time.perf_counter`, or `time.thread_time`, which
            other programs on the machine do not disturb.
    """

    def __init__(self, running_s: Callable[[], float] = time.perf_counter) -> None:
        self._running_s = running_s
        self._skipped_s = 0.0

    def now_s(self) -> float:
        """Return the time."""
        return self._running_s() + self._skipped_s

    def sleep_until(self, at_s: float) -> None:
        """Jump."""
        # For example, the engine computes for 5 ms and has nothing to do for 75 ms. The clock jumps
        # by these 75 ms, and an hour's call takes less than four minutes.
        self._skipped_s += max(0.0, at_s - self.now_s())


@dataclass(frozen=True, slots=True)
class Tick:
    """One tick of the engine that did something.

    Attributes:
        at_s: when it began.
        seconds: how long it took.
    """

    at_s: float
    seconds: float


def drive(
    core: EngineCore,
    callers: Sequence[Caller],
    clock: Clock,
    until_s: float,
    note: Callable[[Output], None] | None = None,
) -> list[Tick]:
    """Hold the callers' conversations until that time, and return the ticks it took.

    Args:
        core: warm, and only touched by this thread; goes by the same clock.
        callers: whose sessions are not open yet, or are from an earlier drive.
        clock: tells the time.
        until_s: when to stop, on that clock; conversations may be gone on with afterwards.
        note: is told of every output besides.
    """
    by_session = {caller.session_id: caller for caller in callers}

    def deliver(outputs: Sequence[Output]) -> None:
        now_s = clock.now_s()
        for output in outputs:
            by_session[output.session_id].take(output, now_s)
            if note is not None:
                note(output)

    ticks: list[Tick] = []
    while (now_s := clock.now_s()) < until_s:
        for caller in callers:
            if caller.due_s <= now_s:
                for command in caller.act(now_s):
                    deliver(core.apply(command))
        # A tick that finds nothing to do is not counted: there are many, and they would hide the
        # long ones.
        num_ticks, at_s = core.metrics.ticks, clock.now_s()
        deliver(core.tick())
        if core.metrics.ticks > num_ticks:
            ticks.append(Tick(at_s, clock.now_s() - at_s))
        # Until the first caller has something to say, or the engine is due, or it is over.
        wakes_s = min(caller.due_s for caller in callers)
        due_s = core.next_due_s()
        clock.sleep_until(min(until_s, wakes_s, until_s if due_s is None else due_s))
    return ticks
