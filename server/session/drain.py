"""Let a server's sessions end by themselves, while no new ones are let in."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator

DRAINING = "This server is about to stop, and takes no new sessions. Try again: another one may."
"""What clients are told who come while the server drains."""


class Drain:
    """Know whether the server drains, and tell its sessions until when they can go on.

    Args:
        limit_s: how long the sessions that are open may go on once it begins; 0 for not at all.
        clock: Unix time in seconds.
    """

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.time) -> None:
        self._limit_s = limit_s
        self._clock = clock
        self._told: set[Callable[[int], None]] = set()
        self.ends_at: int | None = None

    @property
    def is_begun(self) -> bool:
        """Say whether the server drains."""
        return self.ends_at is not None

    @property
    def is_due(self) -> bool:
        """Say whether the time of those that are still open is over."""
        return self.ends_at is not None and self._clock() >= self.ends_at

    def begin(self) -> None:
        """Begin, and tell every session that is open when it will be ended; once.

        If they are ended at once, only that end is told.
        """
        if self.ends_at is not None:
            return
        if not self._limit_s:
            self.ends_at = int(self._clock())
            return
        # Rounded up: nobody is ended before the time that it was told.
        self.ends_at = math.ceil(self._clock() + self._limit_s)
        for tell in [*self._told]:
            tell(self.ends_at)

    @contextlib.contextmanager
    def telling(self, tell: Callable[[int], None]) -> Iterator[None]:
        """Have a session told, now if it came in just before the server began to drain.

        Args:
            tell: takes the Unix time in seconds at which the session will be ended; it must not
                raise.
        """
        # Added before checking whether the drain has begun, so a session that comes between the two
        # is told as well.
        self._told.add(tell)
        try:
            if self.ends_at is not None and self._limit_s:
                tell(self.ends_at)
            yield
        finally:
            self._told.discard(tell)
