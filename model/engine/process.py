"""Run an engine in a process of its own, and start it again when it dies.

The gateway keeps its event loop and its interpreter lock to itself, and what kills the engine does
not kill the calls: the sessions are told that it is gone, and again when it is back.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import multiprocessing
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import resource_tracker
from threading import Event, Lock, Thread
from time import monotonic

import model.errors
from model.engine.at_work import AtWork
from model.engine.child import NAME, run_child
from model.engine.core import CoreSpec
from model.engine.wire import (
    Began,
    Begin,
    Described,
    Message,
    Outgoing,
    Refused,
    Report,
    Silence,
    WireError,
    encode,
    note_silence,
    received,
)
from model.errors import EngineError, OverloadedError, ParleyError
from model.messages import (
    Cancel,
    Close,
    Command,
    EngineBack,
    EngineGone,
    EngineHeard,
    EngineInfo,
    EngineLost,
    EngineSilent,
    News,
    Open,
    Output,
    Reopen,
    SessionFailed,
)
from model.metrics import EngineMetrics

_log = logging.getLogger(__name__)

# A worked example of a crash. Sessions A and B are open; a driver kills the child while it works on
# A.
#
#     the connection ends     EngineLost to A and B: their machines note that they have no engine
#     0 s later               a new child is spawned from the same spec, and loads the model
#     it is ready             EngineBack: A and B open again, and tell their conversations
#     it dies on A again      A is ended (SessionFailed); B is told to the next one
#
# For which session it works, the child notes in shared memory before each command (`AtWork`),
# because a process that is dead cannot be asked.

_STOP_TIMEOUT_S = 5.0
_MAX_SUSPECTS = 256
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
_DESCRIPTORS_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Say how often an engine that dies is started again.

    Attributes:
        delays_s: before the first restart in a row, the second, and so on; when they are used up,
            the engine is given up.
        steady_s: an engine that has run for so long begins at the first delay again.
        doubt_s: an engine that sends nothing for so long may hang, and gets no new sessions. It
            reports twice a second, unless one piece of its work takes longer.
        hang_s: an engine that sends nothing for so long hangs, and is killed.
        loading_s: the same while it is built and warmed up, which no report interrupts.
    """

    delays_s: tuple[float, ...] = (0.0, 1.0, 2.0, 5.0, 10.0)
    steady_s: float = 60.0
    doubt_s: float = 1.5
    hang_s: float = 10.0
    loading_s: float = 1800.0


class ProcessEngine:
    """Serve from a child process. Implements `model.messages.Engine`.

    The child is launched at once and builds the engine while the caller goes on; who asks for
    `info` waits for it. Commands that the child does not take wait, up to a bound for each session;
    a `Close`, `Cancel` or `Reopen` is taken even beyond, as by `LocalEngine`.

    A session whose command the engine hangs on is the culprit of that loss, and so is one that it
    worked for in two losses: a crash may be a coincidence once.

    Args:
        spec: builds the engine's core in the child.
        policy: for restarts.
    """

    def __init__(self, spec: CoreSpec, policy: RestartPolicy | None = None) -> None:
        self._metrics = EngineMetrics()
        self._spec = spec
        self._policy = policy or RestartPolicy()
        self._described: Described | None = None
        self._lock = Lock()  # guards the two fields below; never held for long
        self._open: set[str] = set()  # sessions that have a slot, or have one coming
        self._outgoing: Outgoing | None = None  # while commands are taken
        self._supervisor: Thread | None = None
        self._crashes: Counter[str] = Counter()  # by the session that was being worked for
        self._is_stopping = Event()
        self._launching = Lock()  # guards the field below, for as long as a launch takes
        self._child: _Child | None = _Child(spec, self._policy)

    @property
    def info(self) -> EngineInfo:
        """Describe the engine, waiting until it is built.

        Raises:
            ParleyError: it cannot be built: what its spec raises, or the child died.
        """
        if self._described is None:
            if self._child is None:
                raise EngineError("the engine was stopped before it was built")
            self._described = self._child.description()
        return self._described.info

    @property
    def metrics(self) -> EngineMetrics:
        """Return the child's counters as it last reported them; a new child counts from zero."""
        return self._metrics

    @property
    def process_id(self) -> int | None:
        """Return the child's process id, None while there is no child."""
        child = self._child
        return None if child is None else child.pid

    def start(self, deliver: Callable[[Output | News], None]) -> None:
        """Warm the engine up and begin to serve; see `Engine.start`.

        Raises:
            EngineError: it runs already, or the model cannot be run; the cause says why.
            ParleyError: it cannot be built; see `info`.
        """
        if self._supervisor is not None:
            raise EngineError("the engine runs already")
        self._is_stopping.clear()
        child = self._child = self._child or _Child(self._spec, self._policy)
        try:
            self._described = child.description()
            child.begin()
        except ParleyError:
            self.stop()
            raise
        self._serve_with(child)
        self._supervisor = Thread(
            target=self._supervise, args=(child, deliver), name="engine supervisor", daemon=True
        )
        self._supervisor.start()

    def submit(self, command: Command) -> None:
        """Hand a command to the child; see `Engine.submit`.

        While there is no child to take it, it is lost: so is what it was to be added to.
        """
        with self._lock:
            if self._outgoing is None:
                return
            if isinstance(command, Open):
                self._check_admission(command)
            is_relief = isinstance(command, (Close, Cancel, Reopen))
            self._outgoing.put(command, is_relief=is_relief)
            match command:
                case Open():
                    self._open.add(command.session_id)
                case Close():
                    self._open.discard(command.session_id)
                case _:
                    pass

    def stop(self) -> None:
        """End the child and wait for it; see `Engine.stop`."""
        self._is_stopping.set()
        self._serve_with(None)
        with self._launching:
            child, self._child = self._child, None
        if child is not None:
            child.cut_off()
        if self._supervisor is not None:
            self._supervisor.join()
            self._supervisor = None
        # The supervisor ends the child that it serves. Before it runs, that is done here.
        elif child is not None:
            child.end()

    def _check_admission(self, command: Open) -> None:
        if command.session_id in self._open:
            raise EngineError(f"session {command.session_id} is open already")
        if len(self._open) >= self.info.max_sessions:
            raise OverloadedError(f"all {self.info.max_sessions} sessions are taken")

    def _serve_with(self, child: _Child | None) -> None:
        """Take commands for a child, or for none."""
        outgoing = None
        if child is not None:
            outgoing = Outgoing(child.connection, child.description().max_queued_commands)
        with self._lock:
            before, self._outgoing = self._outgoing, outgoing
            self._open.clear()
        if before is not None:
            before.close()
        if child is not None:
            _log.info("the engine runs in process %s", self.process_id)

    # The supervisor's thread.

    def _supervise(self, child: _Child, deliver: Callable[[Output | News], None]) -> None:
        """Pass on what the child says; when it dies, start another, for as long as that helps."""

        def guarded(output: Output | News) -> None:
            try:
                deliver(output)
            except Exception:  # noqa: BLE001 - the receiver's fault is not the sessions'
                _log.exception("an output could not be delivered")

        delays_s = iter(self._policy.delays_s)
        while True:
            began_s = monotonic()
            self._pass_on(child, guarded)
            self._serve_with(None)
            self._metrics = EngineMetrics()
            child.end()
            if self._is_stopping.is_set():
                return
            _log.error("the engine's process was lost: it %s", child.end_of_it)
            lost = f"The engine was lost: its process {child.end_of_it}."
            suspect = _suspect(child)
            guarded(EngineLost(lost, self._culprit(child, suspect), suspect))
            # A process that dies once a day is started at once each time. One that dies after every
            # start is started after 0, 1, 2, 5 and 10 s, and then given up.
            if monotonic() - began_s >= self._policy.steady_s:
                delays_s = iter(self._policy.delays_s)
            successor = self._revived(delays_s)
            if successor is None:
                if self._is_stopping.is_set():
                    return
                _log.error("the engine's process died too often; it is not started any more")
                guarded(EngineGone("The engine was lost too often and is not started any more."))
                return
            child = successor
            self._serve_with(child)
            guarded(EngineBack())

    def _culprit(self, child: _Child, session_id: str) -> str:
        """Return the session that is to blame for a child's death; "" if none is."""
        if not session_id:
            return ""
        self._crashes[session_id] += 1
        # A child that hangs was at work on exactly one command. A child that dies may have been
        # killed from outside, so one death proves nothing.
        is_sure = child.has_hung or self._crashes[session_id] > 1
        if is_sure:
            del self._crashes[session_id]
        if len(self._crashes) > _MAX_SUSPECTS:
            # Most of these sessions have ended, which nobody says here: the oldest is forgotten.
            del self._crashes[next(iter(self._crashes))]
        return session_id if is_sure else ""

    def _pass_on(self, child: _Child, deliver: Callable[[Output | News], None]) -> None:
        heard_s, is_silent = monotonic(), False
        try:
            for message in child.messages:
                if isinstance(message, Silence):
                    silent_s = monotonic() - heard_s
                    if silent_s >= self._policy.hang_s:
                        child.has_hung = True
                        raise WireError(f"it has said nothing for {silent_s:.0f} s")  # noqa: TRY301 - as by `received`
                    if silent_s >= self._policy.doubt_s and not is_silent:
                        is_silent = True
                        _log.warning("the engine says nothing; it may hang")
                        deliver(EngineSilent())
                    continue
                heard_s = monotonic()
                if is_silent:
                    is_silent = False
                    deliver(EngineHeard())
                if isinstance(message, Report):
                    self._metrics = message.metrics
                    continue
                if isinstance(message, (Begin, Began, Described, Refused)):
                    raise WireError(f"expected outputs, got {message}")  # noqa: TRY301 - as by `received`
                if isinstance(message, SessionFailed):
                    with self._lock:
                        self._open.discard(message.session_id)
                deliver(message)  # type: ignore[arg-type]  # what is left is outputs
        except WireError as error:
            _log.error("the engine's process is killed: %s", error)
            child.process.kill()

    def _revived(self, delays_s: Iterator[float]) -> _Child | None:
        """Start another child; None if it was tried often enough, or is not wanted any more."""
        for delay_s in delays_s:
            if self._is_stopping.wait(delay_s):
                return None
            try:
                child = self._launched()
            except OSError as error:
                _log.error("the engine's process could not be started: %s", error)
                continue
            if child is None:
                return None
            try:
                if child.description() != self._described:
                    raise EngineError("another engine came up than the one that was lost")
                child.begin()
            except ParleyError as error:
                child.end()
                if not self._is_stopping.is_set():
                    _log.error("the engine could not be started again: %s", _reason(error))
                continue
            return child
        return None

    def _launched(self) -> _Child | None:
        """Launch a child; None if it is not wanted any more.

        While the gateway has no descriptors left, which is its peers' doing and passes, it waits:
        no engine was tried, so none has failed.

        Raises:
            OSError: the system starts no process, for another reason.
        """
        while True:
            try:
                with self._launching:
                    if self._is_stopping.is_set():
                        return None
                    child = self._child = _Child(self._spec, self._policy)
                    return child
            except OSError as error:
                if error.errno not in _NO_DESCRIPTORS:
                    raise
                _log.error("the engine's process waits for descriptors: %s", error)
            if self._is_stopping.wait(_DESCRIPTORS_WAIT_S):
                return None


class _Child:
    """Hold one child process and the connection to it.

    Args:
        spec: builds the engine's core in it.
        policy: says how long it may be silent once it serves.
    """

    def __init__(self, spec: CoreSpec, policy: RestartPolicy) -> None:
        self._policy = policy
        self.at_work, self.has_hung = AtWork(), False
        self.connection, theirs = socket.socketpair()
        self.messages = received(self.connection)
        note_silence(self.connection, policy.loading_s)
        # It ends with its connection, so with us; and the interpreter ends it when it exits.
        self.process = multiprocessing.get_context("spawn").Process(
            target=run_child, args=(spec, theirs, self.at_work), name=NAME, daemon=True
        )
        try:
            with theirs:
                _start_without_interrupts(self.process)
        except OSError:
            self.connection.close()
            raise
        self.pid = self.process.pid
        self._has_ended = False
        self._exit_code: int | None = None
        self._described: Described | None = None

    def description(self) -> Described:
        """Wait until the core is built.

        Raises:
            ParleyError: it cannot be.
        """
        if self._described is not None:
            return self._described
        message = self._next()
        match message:
            case Described():
                self._described = message
                return message
            case Refused():
                raise _error(message)
            case _:
                raise WireError(f"expected the engine's description, got {message}")

    def begin(self) -> None:
        """Warm the engine up.

        Raises:
            EngineError: it cannot run; the cause says why.
        """
        with contextlib.suppress(OSError):  # it may be dead, which reading will tell
            self.connection.sendall(encode(Begin()))
        message = self._next()
        match message:
            case Began():
                note_silence(self.connection, self._policy.doubt_s / 4)
            case Refused():
                raise EngineError("the engine could not be started") from _error(message)
            case _:
                raise WireError(f"expected the engine to begin, got {message}")

    def cut_off(self) -> None:
        """End the connection: whoever waits for its messages is told, and the process ends."""
        with contextlib.suppress(OSError):  # it may have gone by itself
            self.connection.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        """End the process and wait for it; for the thread that takes its messages."""
        self.cut_off()
        if self._has_ended:
            return
        self._has_ended = True
        self.process.join(_STOP_TIMEOUT_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self._exit_code = self.process.exitcode
        # Its two descriptors would stay for as long as anybody knows it.
        self.process.close()
        self.messages.close()
        self.connection.close()

    @property
    def end_of_it(self) -> str:
        """Say how the process ended."""
        code = self._exit_code
        if code is not None and code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"exited with code {code}"

    def _next(self) -> Message:
        message = next(self.messages, None)
        if isinstance(message, Silence):
            self.process.kill()
            self.end()
            raise EngineError(
                f"the engine was not ready within {self._policy.loading_s:.0f} s, and was killed"
            )
        if message is None:
            self.end()
            raise EngineError(f"the engine's process {self.end_of_it} before it was ready")
        return message


def _start_without_interrupts(process: multiprocessing.process.BaseProcess) -> None:
    """Start a child that no Ctrl-C reaches, not even before its first line has run."""
    # The tracker blocks and unblocks SIGINT when it starts, so it has to run before we block the
    # signal.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _suspect(child: _Child) -> str:
    """Return the session for which a child was at work when it ended; "" if for none."""
    return child.at_work.read().partition("/")[0]


def _error(refused: Refused) -> ParleyError:
    """Return the exception that the child met."""
    kind = getattr(model.errors, refused.kind, None)
    if isinstance(kind, type) and issubclass(kind, ParleyError):
        return kind(refused.message)
    return EngineError(f"the engine failed with {refused.kind}: {refused.message}")


def _reason(error: ParleyError) -> str:
    return str(error.__cause__ or error)
