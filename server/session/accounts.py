"""Count and limit the use of API keys, on this server alone; in the event loop."""

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from server.config.server import KeyLimits

_MINUTE_S, _DAY_S = 60.0, 86_400.0
# When a session will end is not known. So a client that was refused may try again after this.
_RETRY_S = 5
_WATCH_S = 1.0


@dataclass(frozen=True, slots=True)
class LimitReached:
    """Say why a key gets no further session now.

    Attributes:
        text: for the client.
        retry_after_s: when it is worth trying again.
    """

    text: str
    retry_after_s: int


class Account:
    """Hold what one API key has used: its own sessions, and those of keys that it made.

    Args:
        name: of the key.
        limits: of what it may use.
        clock: Unix time in seconds. Days are UTC's.
    """

    def __init__(
        self, name: str, limits: KeyLimits, clock: Callable[[], float] = time.time
    ) -> None:
        self.name = name
        self._ends: set[Callable[[str], None]] = set()
        self._limits = limits
        self._clock = clock
        self._begun_s: deque[float] = deque()  # of the last minute, where that is bounded
        self._settled_s = clock()
        self._today_s = 0.0
        self._all_s = 0.0
        self.num_open = 0
        self.num_begun = 0
        self.num_refused = 0

    @property
    def seconds(self) -> float:
        """Return how long its sessions have lasted, together; changes nothing, on any thread."""
        return self._all_s + max(0.0, self._clock() - self._settled_s) * self.num_open

    def reached(self) -> LimitReached | None:
        """Return the limit that a further session would be over, and count that; None without."""
        reached = self._reached()
        self.num_refused += reached is not None
        return reached

    def _reached(self) -> LimitReached | None:
        self._settle()
        limits, now_s = self._limits, self._settled_s
        if limits.max_sessions is not None and self.num_open >= limits.max_sessions:
            text = f"This API key has its {limits.max_sessions} sessions open already."
            return LimitReached(text, _RETRY_S)
        if self._is_used_up:
            return LimitReached(self._used_up_text, math.ceil(_DAY_S - now_s % _DAY_S))
        if limits.sessions_a_minute is not None:
            while self._begun_s and self._begun_s[0] <= now_s - _MINUTE_S:
                self._begun_s.popleft()
            if len(self._begun_s) >= limits.sessions_a_minute:
                text = f"This API key may begin {limits.sessions_a_minute} sessions a minute."
                return LimitReached(text, math.ceil(self._begun_s[0] + _MINUTE_S - now_s) or 1)
        return None

    @property
    def is_timed(self) -> bool:
        """Say whether its sessions may be ended while they are open."""
        return self._limits.minutes_a_day is not None

    def take_up(self, seconds: float) -> None:
        """Count time of today that its sessions had with a server before this one."""
        self._settle()
        self._today_s += seconds

    def end_if_used_up(self) -> None:
        """End its sessions if they have had their minutes of today; called again and again."""
        self._settle()
        if self._is_used_up:
            for end in [*self._ends]:
                end(self._used_up_text)

    @property
    def _is_used_up(self) -> bool:
        minutes = self._limits.minutes_a_day
        return minutes is not None and self._today_s >= minutes * 60

    @property
    def _used_up_text(self) -> str:
        return f"This API key has used its {self._limits.minutes_a_day} minutes of today (UTC)."

    @contextlib.contextmanager
    def opened(self, end: Callable[[str], None]) -> Iterator[None]:
        """Count a session while it is open.

        Args:
            end: ends it, and tells its client a text; may be called more than once.
        """
        self._settle()
        self._ends.add(end)
        self.num_open += 1
        self.num_begun += 1
        if self._limits.sessions_a_minute is not None:
            self._begun_s.append(self._settled_s)
        try:
            yield
        finally:
            self._settle()
            self._ends.discard(end)
            self.num_open -= 1

    def _settle(self) -> None:
        """Count the time since this was last done."""
        # If the clock is set back, no use is taken away.
        now_s = max(self._clock(), self._settled_s)
        # Sessions are not counted one by one: as long as their number is the same, time counts that
        # many times. Before the number changes, the time so far is settled.
        used_s = (now_s - self._settled_s) * self.num_open
        self._all_s += used_s
        if now_s // _DAY_S == self._settled_s // _DAY_S:
            self._today_s += used_s
        else:
            # For example, settled at 23:59 and again at 00:01 with two sessions: 240 s are used,
            # and 120 s of them are today's.
            self._today_s = now_s % _DAY_S * self.num_open
        self._settled_s = now_s


async def watch(accounts: Sequence[Account]) -> None:
    """End sessions whose keys have used their time, within a second of that; until cancelled."""
    timed = [account for account in accounts if account.is_timed]
    while timed:
        await asyncio.sleep(_WATCH_S)
        for account in timed:
            account.end_if_used_up()
