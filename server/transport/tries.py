"""Slow down whoever tries keys.

A peer with a few wrong keys behind it is made to wait before its next key is even looked at, longer
with each, so that neither an answer nor the lack of one tells anything sooner.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from server.session.counts import Counts
from server.transport.envelope import RefusedError
from server.transport.places import neighbourhood

_log = structlog.get_logger("keys")

# Slips of the pen cost nothing.
FREE_TRIES = 5
FIRST_WAIT_S, MAX_WAIT_S = 0.1, 2.0
# Connections of one address that wait at once: at the longest wait that is eight tries a second.
MAX_WAITING = 16
FORGET_S = 300.0
_MAX_ADDRESSES = 4_096


@dataclass(slots=True)
class _Record:
    num_failed: int = 0
    num_waiting: int = 0
    last_s: float = 0.0


class FailedTries:
    """Remember wrong keys by address, for some minutes.

    Args:
        counts: of the gateway.
        clock: seconds that do not jump.
        sleep: waits for some seconds.
    """

    def __init__(
        self,
        counts: Counts,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._counts = counts
        self._clock = clock
        self._sleep = sleep
        self._records: OrderedDict[str, _Record] = OrderedDict()  # the longest untouched first

    async def wait(self, host: str | None) -> None:
        """Wait for a peer's turn to have its key looked at.

        Raises:
            RefusedError: too many of its tries wait already.
        """
        record = self._records.get(neighbourhood(host))
        if record is None or record.num_failed <= FREE_TRIES:
            return
        if self._clock() - record.last_s > FORGET_S:
            record.num_failed = 0
            return
        if record.num_waiting >= MAX_WAITING:
            raise RefusedError(
                429,
                "Too many wrong keys came from this address. Try again later.",
                code="rate_limit_exceeded",
                kind="rate_limit_error",
                retry_after_s=int(MAX_WAIT_S),
            )
        # For example: five wrong keys and a sixth are answered at once. The next one waits 0.1 s,
        # then 0.2, 0.4, 0.8, 1.6 s, and 2 s each from then on. With 16 at a time, that is eight
        # keys a second out of 2¹⁹², and a right key from the same address waits as well, but comes
        # through.
        doublings = min(record.num_failed - FREE_TRIES - 1, 16)
        record.num_waiting += 1
        try:
            await self._sleep(min(MAX_WAIT_S, FIRST_WAIT_S * 2**doublings))
        finally:
            record.num_waiting -= 1

    def fail(self, host: str | None, path: str) -> None:
        """Note a wrong key."""
        self._counts.failed_keys += 1
        address = neighbourhood(host)
        record = self._records.setdefault(address, _Record())
        record.num_failed += 1
        record.last_s = self._clock()
        # Of 4,096 addresses the one that was quiet for longest is forgotten, so memory is bounded
        # and whoever tries just now is not the one to go.
        self._records.move_to_end(address)
        if len(self._records) > _MAX_ADDRESSES:
            self._records.popitem(last=False)
        _log.warning("wrong key", address=address, tries=record.num_failed, path=path)
