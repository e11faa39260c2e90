"""Serve many sessions by one script."""

from __future__ import annotations

import heapq
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from itertools import count

from model.engine.notes import Notes
from model.engine.sessions import failure_text
from model.messages import (
    AppendAudio,
    Close,
    Command,
    EngineInfo,
    Open,
    Output,
    ResponseAudio,
    ResponseFailed,
    SessionFailed,
    StepNoted,
)
from model.metrics import EngineMetrics
from model.schemas.service import SchemaService
from model.scripted.checker import Checker
from model.scripted.program import Program, Progress
from model.scripted.script import Script
from model.scripted.voice import VOICES

_log = logging.getLogger(__name__)

_RATE_HZ = 24_000  # what clients send and get by default
_FRAME_MS = 80
_IMAGE_SIDE = 4_096  # so that the server's settings say how large pictures are
_MAX_QUEUED_COMMANDS = 4096
# Sessions that were closed and whose progress is kept.
_MAX_CLOSED = 1024


class ScriptedCore:
    """Hold the sessions and advance them. Implements `model.engine.core.EngineCore`.

    Args:
        script: to follow.
        max_sessions: sessions that may be open at once.
        ahead_ms: audio of a reply that may be made before its time to be played.
        clock: returns seconds, never going back.
        name: of the model.
        checker: of calls' arguments; None for a process of its own, when there are any.
    """

    def __init__(
        self,
        script: Script,
        *,
        max_sessions: int,
        ahead_ms: int,
        clock: Callable[[], float],
        name: str = "scripted",
        checker: Checker | None = None,
    ) -> None:
        self.metrics = EngineMetrics()
        self._script, self._ahead_s, self._clock = script, ahead_ms / 1000, clock
        self._info = EngineInfo(
            name,
            _RATE_HZ,
            _FRAME_MS,
            tuple(VOICES),
            max_sessions,
            image_side=_IMAGE_SIDE,
            recites=True,
        )
        self._checker: Checker = checker or SchemaService()
        self._programs: dict[str, Program] = {}
        self._notes: dict[str, Notes] = {}  # of sessions that are noted
        self._waiting: list[Program] = []  # for what the checker says
        # A gateway that has to tell a conversation anew closes the session and opens it again
        # under its id. What was heard of the script stays heard.
        self._closed: OrderedDict[str, Progress] = OrderedDict()
        self._due: list[tuple[float, int, Program]] = []  # a heap; entries may be out of date
        self._numbers = count()  # so that programs that are due together are never compared

    @property
    def info(self) -> EngineInfo:
        """Describe the engine."""
        return self._info

    @property
    def max_queued_commands(self) -> int:
        """Bound the commands that wait for the engine's thread."""
        return _MAX_QUEUED_COMMANDS

    def warm_up(self) -> None:
        """Have the checker ready, if the script makes any calls."""
        if any(rule.call for rule in self._script.reply):
            wait([self._checker.misfit("warm-up", "{}", "{}")])

    def on_wake(self, wake: Callable[[], None]) -> None:
        """Have `wake` called when `next_due_s` may say something else, from any thread."""
        self._checker.on_done = wake

    def close(self) -> None:
        """End what works for the engine elsewhere."""
        self._checker.close()

    def next_due_s(self) -> float | None:
        """Say when the next tick has something to do, on the clock; None if never as things are."""
        waiting, self._waiting = self._waiting, []
        for program in waiting:
            self._note_due(program)
        # A worked example: session A is due at 5.0 and has an entry for it. A cancel makes it due
        # at 5.3, and a second entry is pushed. At 5.0 the first one is looked at: A is not due
        # then, so it is out of date and dropped. To take it out of the heap at once would mean to
        # search for it.
        while self._due:
            due_s, _, program = self._due[0]
            is_open = self._programs.get(program.session_id) is program
            if is_open and program.due_s == due_s:
                return due_s
            heapq.heappop(self._due)
        return None

    def apply(self, command: Command) -> list[Output]:
        """Carry out a command, and return what follows from it at once."""
        if isinstance(command, Open):
            return self._open(command)
        program = self._programs.get(command.session_id)
        if program is None:
            return []  # it failed or was closed while the command was on its way
        if isinstance(command, Close):
            self._release(program)
            return []
        if isinstance(command, AppendAudio):
            self.metrics.frames_heard += len(command.pcm) // self._info.frame_samples
        now_s = self._clock()
        noted = self._noted(command.session_id, now_s)
        return [*noted, *self._guarded(program, lambda: program.accept(command, now_s))]

    def tick(self) -> list[Output]:
        """Make what is due in all sessions."""
        now_s = self._clock()
        outputs: list[Output] = []
        # A program that was served may be due again within this tick, as when a reply is made
        # faster than it is played: the loop goes on until nobody is.
        while (due_s := self.next_due_s()) is not None and due_s <= now_s:
            _, _, program = heapq.heappop(self._due)
            if program.session_id in self._notes:
                outputs.append(StepNoted(program.session_id, now_s))
            outputs += self._guarded(program, lambda program=program: program.tick(now_s))  # type: ignore[misc]  # a default binds the program
        self.metrics.ticks += bool(outputs)
        return outputs

    def fail_all(self, message: str) -> Sequence[Output]:
        """Give up all sessions."""
        failed = [SessionFailed(session_id, message) for session_id in self._programs]
        self._programs.clear()
        self._notes.clear()
        self._due.clear()
        self._waiting.clear()
        self._closed.clear()
        self.metrics.sessions_failed += len(failed)
        self.metrics.sessions = 0
        return failed

    def _open(self, command: Open) -> list[Output]:
        session_id = command.session_id
        if session_id in self._programs:
            return [SessionFailed(session_id, "the session is open already")]
        if len(self._programs) == self._info.max_sessions:
            message = f"all {self._info.max_sessions} sessions are taken"
            return [SessionFailed(session_id, message)]
        progress = self._closed.pop(session_id, None) or Progress()
        try:
            program = Program(
                command, self._script, progress, self._info, self._ahead_s, self._checker
            )
        except Exception as error:  # noqa: BLE001 - whatever broke is this session's own
            return [SessionFailed(session_id, failure_text(session_id, error))]
        self._programs[session_id] = program
        self.metrics.sessions = len(self._programs)
        if command.is_noted:
            self._notes[session_id] = Notes(session_id, command.seed or 0)
        return self._noted(session_id, self._clock())

    def _noted(self, session_id: str, now_s: float) -> list[Output]:
        """Note a command, where somebody wants to know."""
        notes = self._notes.get(session_id)
        return [] if notes is None else [notes.command(now_s)]

    def _release(self, program: Program) -> None:
        del self._programs[program.session_id]
        self._notes.pop(program.session_id, None)
        self._closed[program.session_id] = program.progress
        if len(self._closed) > _MAX_CLOSED:
            self._closed.popitem(last=False)
        self.metrics.sessions = len(self._programs)

    def _guarded(self, program: Program, act: Callable[[], list[Output]]) -> list[Output]:
        """Let a session do something; whatever breaks is its own."""
        try:
            outputs = act()
        except Exception as error:  # noqa: BLE001 - as in `_open`
            outputs = [SessionFailed(program.session_id, failure_text(program.session_id, error))]
        return self._made(program, outputs)

    def _made(self, program: Program, outputs: list[Output]) -> list[Output]:
        """Take note of what a session has made, and of when it is due again."""
        for output in outputs:
            match output:
                case ResponseAudio():
                    self.metrics.frames_spoken += 1
                case ResponseFailed():
                    _log.warning("session %s: %s", output.session_id, output.message)
                case SessionFailed():
                    self.metrics.sessions_failed += 1
                    self._release(program)
                    return outputs
                case _:
                    pass
        self._note_due(program)
        return outputs

    def _note_due(self, program: Program) -> None:
        if self._programs.get(program.session_id) is not program:
            return
        # Whoever waits for the checker is due at no time that is known. The checker wakes the
        # engine, and then all of these are looked at again.
        if program.is_waiting:
            self._waiting.append(program)
        elif program.due_s is not None:
            heapq.heappush(self._due, (program.due_s, next(self._numbers), program))
