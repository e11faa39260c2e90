"""Do what computes for long outside of Python's lock in a thread beside the event loop."""

import asyncio
import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


class WorkThread:
    """Do one piece of work after the other, of all sessions, and tell the event loop of each.

    Pieces are done, and told of, in the order in which they were put. What waits is bounded by
    whoever puts it.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._works: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._done: deque[tuple[_Work, Exception | None]] = deque()
        self._is_told = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, and tell the running loop."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """End, after what was put before."""
        if self._thread is not None:
            self._works.put(None)
            await asyncio.to_thread(self._thread.join)

    def put(self, work: Callable[[], None], done: Callable[[Exception | None], None]) -> None:
        """Do some work.

        Args:
            work: called in the thread.
            done: called in the event loop after it, with what it raised; it must not raise.
        """
        self._works.put(_Work(work, done))

    def _run(self) -> None:
        while (work := self._works.get()) is not None:
            error: Exception | None = None
            try:
                work.do()
            except Exception as raised:  # noqa: BLE001 - a session's, which is told
                error = raised
            self._done.append((work, error))
            # To wake the loop costs a system call. Where it has not come yet, it will find this one
            # beside the one before.
            if not self._is_told.is_set():
                self._is_told.set()
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        # First, so that what is done from now on is told anew.
        self._is_told.clear()
        while self._done:
            work, error = self._done.popleft()
            work.done(error)


@dataclass(frozen=True, slots=True)
class _Work:
    do: Callable[[], None]
    done: Callable[[Exception | None], None]
