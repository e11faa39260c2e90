"""Pace what a session gives its engine.

A client may append minutes of audio in one event. The engine holds a bounded amount per session,
and takes it at least as fast as it was spoken; what is beyond that waits here, in order.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from model.messages import AppendAudio, Cancel, ClearAudio, Close, Command, Respond

# Half of what the engine holds: it may fall behind real time for a while.
_MAX_AHEAD_S = 60.0
_PIECE_S = 10.0


class Intake:
    """Pass a session's commands on, audio at most a minute ahead of real time.

    Args:
        submit: hands a command to the engine.
        rate_hz: of the engine's audio.
        clock: seconds that do not jump.
    """

    def __init__(
        self, submit: Callable[[Command], None], rate_hz: int, clock: Callable[[], float]
    ) -> None:
        self._submit = submit
        self._rate_hz = rate_hz
        self._clock = clock
        self._heard_by_s = 0.0  # when all submitted audio has been heard, in real time
        self._waiting: deque[Command] = deque()
        self._has_waiting = asyncio.Event()

    @property
    def waiting_s(self) -> float:
        """Return how much audio waits here."""
        return sum(self._seconds(command) for command in self._waiting)

    def put(self, command: Command) -> None:
        """Submit a command, or let it wait behind audio that waits."""
        match command:
            case Close():
                self._waiting.clear()
                self._heard_by_s = 0.0  # it is told anew what it has not heard yet
                self._submit(command)
            case Cancel():
                self._cancel(command)
            case ClearAudio():
                while self._waiting and isinstance(self._waiting[-1], AppendAudio):
                    self._waiting.pop()
                self._enqueue(command)
            case AppendAudio():
                step = int(_PIECE_S * self._rate_hz)
                for start in range(0, len(command.pcm), step):
                    self._enqueue(replace(command, pcm=command.pcm[start : start + step]))
            case _:
                self._enqueue(command)

    def release(self) -> float | None:
        """Submit what is due; return in how many seconds more will be, None if nothing waits."""
        while self._waiting:
            wait_s = self._heard_by_s - _MAX_AHEAD_S - self._clock()
            if isinstance(self._waiting[0], AppendAudio) and wait_s > 0:
                return wait_s
            self._pass_on(self._waiting.popleft())
        return None

    async def run(self) -> None:
        """Release what waits, for as long as the session lives."""
        while True:
            wait_s = self.release()
            if wait_s is not None:
                await asyncio.sleep(wait_s)
            else:
                self._has_waiting.clear()
                await self._has_waiting.wait()

    def _enqueue(self, command: Command) -> None:
        self._waiting.append(command)
        if self.release() is not None:
            self._has_waiting.set()

    def _cancel(self, command: Cancel) -> None:
        """Cancel at once, also a response that the engine has not been asked for yet."""
        for waiting in self._waiting:
            if isinstance(waiting, Respond) and waiting.turn == command.turn:
                self._waiting.remove(waiting)
                return
        self._submit(command)

    def _pass_on(self, command: Command) -> None:
        if isinstance(command, AppendAudio):
            start_s = max(self._heard_by_s, self._clock())
            self._heard_by_s = start_s + self._seconds(command)
        self._submit(command)

    def _seconds(self, command: Command) -> float:
        return len(command.pcm) / self._rate_hz if isinstance(command, AppendAudio) else 0.0
