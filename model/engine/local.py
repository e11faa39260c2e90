"""Run an engine on a thread of this process; what the engine does is its core's business.

In the gateway's own process that is all there is; in `child.py`, it is the engine's process.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from threading import Condition, Thread
from time import monotonic

from model.engine.core import EngineCore
from model.engine.queues import Queues, Turn
from model.errors import EngineError, OverloadedError
from model.messages import (
    Close,
    Command,
    EngineInfo,
    Open,
    Output,
    SessionFailed,
    Taken,
    weight,
)
from model.metrics import EngineMetrics

_log = logging.getLogger(__name__)

_STOP_TIMEOUT_S = 10.0
# How the two threads meet. The event loop calls `submit`, which puts a command into a queue and
# wakes the engine's thread; it never waits for the model. The engine's thread calls `deliver` with
# each output, which puts it into the event loop (`call_soon_threadsafe`). Between the two there is
# nothing else:
#
#     engine's thread:   wait -> take each session's turn of commands -> tick -> deliver -> wait
#
# `next_due_s` says until when it may sleep: until a reply would run dry, or a frame would be late.
#
# After so many commands of a session, or so much weight, the session is told that they were taken.
# Both are a small part of what a session may have on its way. Otherwise it could wait for a report
# that never comes.
_REPORTED = 32
_REPORTED_WEIGHT = 32_768


class LocalEngine:
    """Own the one thread that touches the model. Implements `model.messages.Engine`.

    Commands wait in a bounded queue for each session, and between two ticks every session has its
    turn; see `Queues`.

    Args:
        core: the engine proper, with `time.monotonic` as its clock.
        is_bounded: whether commands are refused when too many of a session wait; where they come
            over a wire, who sends them has refused what is too much.
        note: called with a session's id before one of its commands is carried out, and with ""
            afterwards: what is noted last tells of whose command a process died.
    """

    def __init__(
        self,
        core: EngineCore,
        *,
        is_bounded: bool = True,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._core = core
        self._note = note
        self._commands = Queues(core.max_queued_commands if is_bounded else None)
        self._num_taken: Counter[str] = Counter()  # by session, since it was last told
        self._weight_taken: Counter[str] = Counter()
        self._changed = Condition()  # guards the fields below and the queue
        self._open: set[str] = set()  # sessions that have a slot, or have one coming
        self._is_stopping = False
        self._thread: Thread | None = None
        self._busy_since_s: float | None = None

    @property
    def busy_s(self) -> float:
        """Say for how long the thread has been at one piece of work; 0 while it waits for some."""
        since_s = self._busy_since_s
        return 0.0 if since_s is None else monotonic() - since_s

    @property
    def info(self) -> EngineInfo:
        """Describe the engine."""
        return self._core.info

    @property
    def metrics(self) -> EngineMetrics:
        """Return the engine's counters."""
        return self._core.metrics

    def start(self, deliver: Callable[[Output], None]) -> None:
        """Start the thread; see `Engine.start`.

        Raises:
            EngineError: it runs already, or the model cannot be run; the cause says why.
        """
        if self._thread is not None:
            raise EngineError("the engine runs already")
        self._is_stopping = False
        self._core.on_wake(self._wake)
        ready: Future[None] = Future()
        self._thread = Thread(target=self._run, args=(deliver, ready), name="engine", daemon=True)
        self._thread.start()
        try:
            ready.result()
        except Exception as error:
            self.stop()
            raise EngineError("the engine could not be started") from error

    def submit(self, command: Command) -> None:
        """Hand a command to the thread; see `Engine.submit`."""
        with self._changed:
            if isinstance(command, Open):
                self._check_admission(command)
            self._commands.put(command)
            match command:
                case Open():
                    self._open.add(command.session_id)
                case Close():
                    self._open.discard(command.session_id)
                case _:
                    pass
            self._changed.notify_all()

    def stop(self) -> None:
        """Stop the thread and wait for it; see `Engine.stop`."""
        thread = self._thread
        if thread is None:
            return
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        thread.join(_STOP_TIMEOUT_S)
        if thread.is_alive():
            raise EngineError(f"the engine's thread did not stop within {_STOP_TIMEOUT_S:.0f} s")
        self._thread = None
        self._core.close()
        self._core.fail_all("stopped")
        self._commands.clear()
        self._open.clear()

    def _check_admission(self, command: Open) -> None:
        if command.session_id in self._open:
            raise EngineError(f"session {command.session_id} is open already")
        if len(self._open) >= self.info.max_sessions:
            raise OverloadedError(f"all {self.info.max_sessions} sessions are taken")

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    # The engine's thread.

    def _run(self, deliver: Callable[[Output], None], ready: Future[None]) -> None:
        try:
            self._core.warm_up()
        except Exception as error:  # noqa: BLE001 - whatever broke, `start` reports it
            ready.set_exception(error)
            return
        ready.set_result(None)
        # A failed session's place is free as soon as the engine has said so, not only when its
        # `Close` comes: somebody else may be waiting for it.
        while (turns := self._wait()) is not None:
            for output in self._advance(turns):
                if isinstance(output, SessionFailed):
                    with self._changed:
                        self._open.discard(output.session_id)
                self._deliver(output, deliver)

    def _deliver(self, output: Output, deliver: Callable[[Output], None]) -> None:
        try:
            deliver(output)
        except Exception:  # noqa: BLE001 - what one session is told is nobody else's fault
            _log.exception("an output could not be delivered")

    def _wait(self) -> list[Turn] | None:
        """Sleep until there is something to do; return the sessions' turns, or None to stop."""
        # The condition guards against a lost wake-up: what came before this line is seen here.
        self._busy_since_s = None
        with self._changed:
            while not self._is_stopping and not self._commands:
                due_s = self._next_due_s()
                timeout_s = None if due_s is None else due_s - monotonic()
                if timeout_s is not None and timeout_s <= 0:
                    break
                self._changed.wait(timeout_s)
            if self._is_stopping:
                return None
            return self._commands.turns()

    def _next_due_s(self) -> float | None:
        try:
            return self._core.next_due_s()
        except Exception:  # noqa: BLE001 - the tick finds out, and is guarded
            _log.exception("the engine does not know when it is due")
            return 0.0

    def _advance(self, turns: list[Turn]) -> list[Output]:
        """Carry out commands and tick once; if the engine breaks, every session is lost."""
        # What is noted names the session to whoever finds this process dead or stuck.
        outputs: list[Output] = []
        for turn in turns:
            self._note(turn.session_id)
            for command in turn.commands:
                outputs += self._done(partial(self._core.apply, command))
            self._note("")
            outputs += self._reported(turn)
        return outputs + self._done(self._core.tick)

    def _done(self, part: Callable[[], Sequence[Output]]) -> list[Output]:
        self._busy_since_s = monotonic()
        try:
            return [*part()]
        except Exception:  # noqa: BLE001 - whatever broke, the engine goes on with new state
            _log.exception("the engine broke; all sessions are lost")
            return [*self._core.fail_all("the engine broke and started over")]

    def _reported(self, turn: Turn) -> list[Output]:
        """Tell a session now and then how much of it was taken, and all of it at its end."""
        session_id, num_commands = turn.session_id, turn.num_dropped + len(turn.commands)
        self._num_taken[session_id] += num_commands
        self._weight_taken[session_id] += sum(map(weight, turn.commands))
        # A session that keeps 256 commands on their way hears of every 32 that were taken. So it
        # never stands still for want of a report.
        is_few = self._num_taken[session_id] < _REPORTED
        is_light = self._weight_taken[session_id] < _REPORTED_WEIGHT
        if is_few and is_light and not isinstance(turn.commands[-1], Close):
            return []
        del self._weight_taken[session_id]
        return [Taken(session_id, self._num_taken.pop(session_id))]
