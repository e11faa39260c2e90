"""Be the engine's process: build a core, serve it over a connection, end with the parent.

Three threads: this process's first one builds the core and then reports its counters, which tells
as well that the engine is not stuck; the reader takes what the parent says; and the engine's own,
`LocalEngine`'s, is the one that runs the model. Outputs are written by the thread that made them. A
parent that does not read them stalls the engine. Commands are read as they come, since one
session's must not hold up another's; sessions bound how many, by what `Taken` tells them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import time
from pathlib import Path
from threading import Event, Lock, Thread

from model.engine.at_work import AtWork
from model.engine.core import CoreSpec, EngineCore
from model.engine.local import LocalEngine
from model.engine.sessions import failure_text
from model.engine.wire import (
    Began,
    Begin,
    Described,
    Message,
    Refused,
    Report,
    Silence,
    encode,
    received,
)
from model.errors import EngineError, ParleyError
from model.heap import share_arenas
from model.messages import Command, Output, SessionFailed

_log = logging.getLogger(__name__)

# The child begins with `Described`, once its core is built, waits for `Begin`, answers `Began` when
# it is warm, and takes commands from then on. It ends when the connection does, which is however
# the parent ends.

NAME = "parley-engine"  # at most 15 characters, as Linux shows them
REPORT_S = 0.5


def run_child(spec: CoreSpec, connection: socket.socket, at_work: AtWork) -> None:
    """Run the engine until the parent is gone.

    Args:
        spec: builds the core.
        connection: to the parent. When it ends, this process ends as well, whatever it is doing.
        at_work: memory that outlives this process: here it writes for which session it works.
    """
    # Ctrl-C goes to every process of the terminal; when to stop is for the parent to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    _take_name()
    share_arenas()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    _Child(spec, connection, at_work).run()


def _take_name() -> None:
    """Be recognised in lists of processes, where the system can show a name."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(NAME, encoding="ascii")


class _Child:
    """Hold both ends together: the connection and the engine."""

    def __init__(self, spec: CoreSpec, connection: socket.socket, at_work: AtWork) -> None:
        self._at_work = at_work
        self._spec = spec
        self._connection = connection
        self._sending = Lock()
        self._is_to_begin = Event()
        self._engine: LocalEngine | None = None

    def run(self) -> None:
        """Build, begin when told, and report for as long as the parent lives."""
        # The reader is there before the core is built, so that a parent that goes away while a
        # model loads for minutes takes this process along.
        Thread(target=self._read, name="reader", daemon=True).start()
        try:
            core = self._spec.build()
            self._send(Described(core.info, core.max_queued_commands))
            self._is_to_begin.wait()
            self._engine = self._begun(core)
        except Exception as error:  # noqa: BLE001 - whatever it was, the parent reports it
            if not isinstance(error, ParleyError):
                _log.exception("the engine could not be started")
            self._send(Refused(type(error).__name__, str(error)))
            return
        self._send(Began())
        self._report(self._engine)

    def _begun(self, core: EngineCore) -> LocalEngine:
        engine = LocalEngine(core, is_bounded=False, note=self._at_work.write)
        try:
            engine.start(self._deliver)
        except EngineError as error:
            raise error.__cause__ or error from None
        return engine

    def _report(self, engine: LocalEngine) -> None:
        while True:
            # An engine that is stuck must not be taken for one that has nothing to say.
            # While one piece of work takes longer than this, nothing is reported. After 1.5 s
            # without a report the parent sends nobody new, and after 10 s it ends this process
            # (`RestartPolicy`).
            if engine.busy_s < REPORT_S:
                self._send(Report(engine.metrics))
            time.sleep(REPORT_S)

    # From the parent.

    def _read(self) -> None:
        try:
            for message in received(self._connection):
                self._take(message)
        except Exception:  # noqa: BLE001 - a thread's outermost edge, before the process ends
            _log.exception("the engine's process does not understand its parent")
        finally:
            # Nothing here is worth saving, and a thread may be deep in a computation.
            os._exit(0)

    def _take(self, message: Message | Silence) -> None:
        match message:
            case Begin():
                self._is_to_begin.set()
            case Described() | Began() | Refused() | Report() | Silence():
                raise AssertionError(f"{message} goes the other way")
            case _:
                self._submit(message)  # type: ignore[arg-type]  # what is left is commands

    def _submit(self, command: Command) -> None:
        assert self._engine is not None, "the parent waits until the engine is ready"
        try:
            self._engine.submit(command)
        except Exception as error:  # noqa: BLE001 - whatever broke is this session's own
            # The parent refuses what it can. What crosses the line at the same time as the news
            # that a session was lost is refused here.
            self._send(SessionFailed(command.session_id, failure_text(command.session_id, error)))

    # To the parent.

    def _deliver(self, output: Output) -> None:
        self._send(output)

    def _send(self, message: Message) -> None:
        frame = encode(message)
        # Where the parent is gone, the reader notices.
        with self._sending, contextlib.suppress(OSError):
            self._connection.sendall(frame)
