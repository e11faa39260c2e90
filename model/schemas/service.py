"""Own one limited worker for function schemas: its queue, its restarts, what is remembered.

Jobs of different owners take turns, so that nobody waits for more than one job of somebody else's.
A job that its worker did not survive is refused; the others go on with the next worker.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Condition, Thread
from typing import Any

from model.errors import GrammarError, OverloadedError
from model.schemas.results import MAX_SCHEMA_CHARS, Draft, Verdict, too_large
from model.schemas.worker import Bounds, receive, send

_log = logging.getLogger(__name__)

_ROOT = Path(__file__).resolve().parents[2]
_START_S = 60.0
_STOP_S = 5.0
MAX_WAITING_EACH = 256  # jobs of one owner
MAX_WAITING = 4096
_NUM_REMEMBERED = 1024
_TOO_LONG = "worked for too long"
_BEYOND = "it takes more time or memory than a schema may take"
_BROKEN = "the schema compiler cannot cope with it"


def _asked() -> Future[Any]:
    """Return what will hold an answer. Who waits may go away; the answer comes all the same."""
    asked: Future[Any] = Future()
    asked.set_running_or_notify_cancel()  # from here on `cancel` does nothing
    return asked


@dataclass(slots=True)
class _Job:
    """One thing to do."""

    message: dict[str, Any]
    future: Future[Any] = field(default_factory=_asked)


class SchemaService:
    """Let a limited process work on schemas. Its process is started when it is first needed.

    Args:
        vocabulary: of the model that chooses, as `model.schemas.spelling.spelled` returns it; None
            where nothing is written.
        bounds: of one job.

    Attributes:
        num_starts: processes that were started.
        on_done: called on a thread of its own after every job.
    """

    def __init__(
        self, vocabulary: dict[str, Any] | None = None, bounds: Bounds | None = None
    ) -> None:
        self._vocabulary = vocabulary
        self._bounds = bounds or Bounds()
        self._changed = Condition()  # guards the fields below
        self._waiting: OrderedDict[str, deque[_Job]] = OrderedDict()
        self._verdicts: OrderedDict[str, Verdict] = OrderedDict()
        self._thread: Thread | None = None
        self._is_closed = False
        self._worker: _Worker | None = None  # the thread's
        self.num_starts = 0
        self.on_done: Callable[[], None] = lambda: None

    def check(self, owner: str, schema: str) -> Future[Verdict]:
        """Ask whether calls can be kept within a schema.

        Args:
            owner: whose turn it takes.
            schema: as JSON text.

        Returns:
            The verdict to come. Only an `OverloadedError` may come in its place: too much waits.
        """
        if len(schema) > MAX_SCHEMA_CHARS:
            return _known(Verdict(too_large(schema)))
        verdict = self._verdicts.get(schema)
        if verdict is not None:
            return _known(verdict)
        asked: Future[Verdict] = _asked()

        def take(done: Future[Any]) -> None:
            try:
                made = done.result()
                verdict = Verdict(made["refused"], tuple(made["left_out"]))
            except GrammarError as error:
                verdict = Verdict(str(error))
            except OverloadedError as error:
                asked.set_exception(error)
                return
            self._remember(schema, verdict)
            asked.set_result(verdict)

        self._put(owner, {"kind": "check", "schema": schema}).add_done_callback(take)
        return asked

    def write(
        self,
        owner: str,
        call: str,
        schema: str,
        chosen: Sequence[int],
        *,
        closes: bool = False,
        without: Sequence[int] = (),
    ) -> Future[Draft]:
        """Ask for a call's arguments up to the next choice; see `model.schemas.desk.Desk.write`.

        Returns:
            The draft to come, or a `GrammarError` or `OverloadedError`.
        """
        asked: Future[Draft] = _asked()

        def take(done: Future[Any]) -> None:
            try:
                made = done.result()
            except (GrammarError, OverloadedError) as error:
                asked.set_exception(error)
                return
            asked.set_result(Draft(**{**made, "choices": tuple(made["choices"])}))

        job = {"call": call, "schema": schema, "chosen": list(chosen)}
        message = {"kind": "write", **job, "closes": closes, "without": list(without)}
        self._put(owner, message).add_done_callback(take)
        return asked

    def misfit(self, owner: str, schema: str, text: str) -> Future[str | None]:
        """Ask why a schema does not accept a JSON text; None if it does.

        Returns:
            The reason to come, or a `GrammarError` or `OverloadedError`.
        """
        return self._put(owner, {"kind": "misfit", "schema": schema, "text": text})

    def close(self) -> None:
        """End the process; what waits is refused. What is asked for later starts another."""
        with self._changed:
            self._is_closed = True
            thread, worker = self._thread, self._worker
            for jobs in self._waiting.values():
                for job in jobs:
                    job.future.set_exception(GrammarError("the server is being stopped"))
            self._waiting.clear()
        if worker is not None:
            worker.cut_off()
        if thread is not None:
            thread.join(_STOP_S)
        if self._worker is not None:
            self._worker.end()
            self._worker = None
        self._is_closed = False

    def _remember(self, schema: str, verdict: Verdict) -> None:
        with self._changed:
            self._verdicts[schema] = verdict
            if len(self._verdicts) > _NUM_REMEMBERED:
                self._verdicts.popitem(last=False)

    def _put(self, owner: str, message: dict[str, Any]) -> Future[Any]:
        """Let a job wait for its owner's turn."""
        job = _Job(message)
        with self._changed:
            jobs = self._waiting.setdefault(owner, deque())
            num_waiting = sum(map(len, self._waiting.values()))
            if self._is_closed or len(jobs) >= MAX_WAITING_EACH or num_waiting >= MAX_WAITING:
                if not jobs:
                    del self._waiting[owner]
                job.future.set_exception(
                    OverloadedError(f"{num_waiting} jobs on function schemas wait already")
                )
                return job.future
            jobs.append(job)
            if self._thread is None:  # it lives for as long as there is something to do
                self._thread = Thread(target=self._work, name="schemas", daemon=True)
                self._thread.start()
        return job.future

    # The thread.

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._do(job)
            except Exception:  # noqa: BLE001 - one job's fault is no other's
                _log.exception("a job on a function schema failed")
                job.future.set_exception(GrammarError("the server could not work on it"))
            self.on_done()

    def _next(self) -> _Job | None:
        """Take a job of whoever has waited longest for a turn; None ends the thread."""
        with self._changed:
            if not self._waiting:
                self._thread = None
                return None
            # A worked example: A has three jobs, B comes with one. A's first is taken, and A goes
            # to the end of the line. The order is A1, B1, A2, A3.
            owner, jobs = self._waiting.popitem(last=False)
            job = jobs.popleft()
            if jobs:
                self._waiting[owner] = jobs
            return job

    def _do(self, job: _Job) -> None:
        while True:
            is_new = self._worker is None
            worker = self._worker or self._started()
            answer = None if worker is None else worker.answer(job.message, self._bounds.wall_s)
            if answer is None or "broke" in answer:
                # What a job has done to the process must not be held against the next one.
                self._worker = None
                ended = "did not start" if worker is None else worker.end()
                # A process that has worked before may have little memory left through other jobs'
                # doing. The job is tried once more in a new one, alone. Only what breaks that is
                # refused. Time is counted for each job, so one that took too long needs no second
                # try.
                if not is_new and ended != _TOO_LONG:
                    continue  # perhaps others had used the memory up; alone, it is its own doing
                is_broken = answer is not None and answer["broke"] != "memory"
                if not self._is_closed:
                    how = f"broke ({answer['broke']})" if answer else ended
                    _log.warning("a function schema is refused: its compiler %s", how)
                job.future.set_exception(GrammarError(_BROKEN if is_broken else _BEYOND))
            elif "refused" in answer:
                job.future.set_exception(GrammarError(answer["refused"]))
            else:
                job.future.set_result(answer["done"])
            return

    def _started(self) -> _Worker | None:
        try:
            worker = _Worker(self._vocabulary, self._bounds)
        except OSError as error:
            _log.error("the process for function schemas could not be started: %s", error)
            return None
        self.num_starts += 1
        with self._changed:
            self._worker = worker
            if self._is_closed:
                worker.cut_off()
        return worker


class _Worker:
    """Hold one process and the connection to it.

    Raises:
        OSError: it could not be started.
    """

    def __init__(self, vocabulary: dict[str, Any] | None, bounds: Bounds) -> None:
        self._connection, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", "model.schemas.worker", str(theirs.fileno())],
                cwd=_ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # a compiler's panic is told by its end
            )
        first = {"bounds": asdict(bounds), "vocabulary": vocabulary}
        if self.answer(first, _START_S) is None:
            raise OSError(f"it {self.end()} at its start")

    def answer(self, message: dict[str, Any], timeout_s: float) -> dict[str, Any] | None:
        """Hand a message over and wait; None if the process did not survive it."""
        self._is_late = False
        self._connection.settimeout(timeout_s)
        try:
            send(self._connection, message)
            return receive(self._connection)
        except TimeoutError:
            self._is_late = True
        except OSError:
            pass
        return None

    def cut_off(self) -> None:
        """End the connection, and with it the process."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def end(self) -> str:
        """End the process, wait for it, and say how it ended."""
        self.cut_off()
        self._connection.close()
        if self._is_late:
            self._process.kill()
        try:
            code = self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if self._is_late or code == -signal.SIGPROF:
            return _TOO_LONG
        return f"ended with code {code}"


def _known(verdict: Verdict) -> Future[Verdict]:
    known: Future[Verdict] = Future()
    known.set_result(verdict)
    return known
