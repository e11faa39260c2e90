"""Open, close and fail sessions: what the engines of all models do alike."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from model.engine.slots import HasSession, SlotTable
from model.errors import ParleyError
from model.messages import Close, Command, Open, Output, SessionCommand, SessionFailed
from model.metrics import EngineMetrics

_log = logging.getLogger(__name__)

S = TypeVar("S", bound=HasSession)
T = TypeVar("T")
R = TypeVar("R")

# An engine on which nothing works so often in a row starts over.
_MAX_BROKEN = 3
_BROKEN = "the engine failed on this session"


def failure_text(session_id: str, error: Exception) -> str:
    """Return what a session is told about the error that ended it; for use in an `except`.

    Our own errors say why. An unexpected one is logged with its traceback, and the session is told
    only that the engine failed.
    """
    if isinstance(error, ParleyError):
        return str(error)
    _log.exception("session %s failed", session_id)
    return _BROKEN


class Sessions(Generic[S]):
    """Carry commands to the sessions that they are for, and give up those that fail.

    Args:
        slots: which session has which.
        metrics: where sessions are counted.
        wipe: leaves nothing of a session in a slot's state.

    Attributes:
        is_trial: whether nobody is served yet, so that whatever breaks is the engine.
    """

    def __init__(
        self, slots: SlotTable[S], metrics: EngineMetrics, wipe: Callable[[int], None]
    ) -> None:
        self._slots, self._metrics, self._wipe = slots, metrics, wipe
        self.is_trial = False
        self._num_broken = 0  # times in a row that `together` broke for everybody

    def is_open(self, slot: S) -> bool:
        """Say whether a slot still has its session."""
        return self._slots.get(slot.session_id) is slot

    def apply(
        self,
        command: Command,
        begin: Callable[[Open], list[Output]],
        carry_out: Callable[[S, SessionCommand], list[Output]],
    ) -> list[Output]:
        """Carry out a command.

        Args:
            command: for any session.
            begin: opens a session for which there is a slot; it takes the slot with `take`.
            carry_out: carries out a command of an open session.

        Returns:
            What follows from it at once; for a command that cannot be carried out, the session's
            failure.
        """
        session_id = command.session_id
        slot = self._slots.get(session_id)
        if isinstance(command, Open):
            if slot is not None:
                return [SessionFailed(session_id, "the session is open already")]
            if self._slots.is_full:
                message = f"all {len(self._slots)} sessions are taken"
                return [SessionFailed(session_id, message)]
            try:
                return begin(command)
            except Exception as error:  # noqa: BLE001 - whatever broke is this session's own
                if (slot := self._slots.get(session_id)) is not None:
                    self.release(slot)
                return [SessionFailed(session_id, failure_text(session_id, error))]
        if slot is None:
            return []  # it failed or was closed while the command was on its way
        if isinstance(command, Close):
            self.release(slot)
            return []
        try:
            return carry_out(slot, command)
        except Exception as error:  # noqa: BLE001 - whatever broke is this session's own
            return [self.fail(slot, failure_text(session_id, error))]

    def take(self, session_id: str, make: Callable[[int], S]) -> S:
        """Give a session the lowest free slot; there must be one."""
        slot = self._slots.take(session_id, make)
        self._metrics.sessions = len(self._slots)
        return slot

    def release(self, slot: S) -> None:
        """Take a slot back, with nothing left in it."""
        self._slots.release(slot)
        self._wipe(slot.index)
        self._metrics.sessions = len(self._slots)

    def fail(self, slot: S, message: str) -> SessionFailed:
        """Give a session up."""
        self.release(slot)
        self._metrics.sessions_failed += 1
        return SessionFailed(slot.session_id, message)

    def fail_broken(self, slot: S) -> SessionFailed:
        """Give up a session whose own program broke, in an `except`; no other is affected."""
        _log.exception("session %s failed", slot.session_id)
        return self.fail(slot, _BROKEN)

    def together(
        self,
        items: Sequence[T],
        slot_of: Callable[[T], S],
        run: Callable[[Sequence[T]], Sequence[R]],
        outputs: list[Output],
    ) -> list[tuple[T, R]]:
        """Do something for several sessions at once, and end only the sessions that break it.

        If it breaks for all together, it is done for each alone. If it breaks for each of them as
        well, and this happens several times in a row, the engine is broken.

        Args:
            items: what is to be done, each for another session.
            slot_of: whose it is.
            run: does it, for one or several; returns one result each.
            outputs: where the ends of sessions are told.

        Returns:
            What was done, with its result.

        Raises:
            Exception: what `run` raises, of an engine that is broken.
        """
        if not items:
            return []
        # A worked example: A, B and C share a step, and B's input makes it raise. It is then done
        # for A, for B and for C alone. B's session ends; A and C have lost a few milliseconds. If
        # all three raise alone as well, that may be three bad sessions or a broken device: after
        # three such ticks in a row, the next one raises, and the engine starts over.
        try:
            results = run(items)
        except Exception:
            if self.is_trial or self._num_broken == _MAX_BROKEN:
                self._num_broken = 0
                raise
            if len(items) == 1:
                self._num_broken += 1
                outputs.append(self.fail_broken(slot_of(items[0])))
                return []
            _log.exception("what %d sessions share broke; each is served alone", len(items))
        else:
            self._num_broken = 0
            return list(zip(items, results, strict=True))
        made = []
        for item in items:
            try:
                made += [(item, result) for result in run([item])]
            except Exception:  # noqa: BLE001 - it is found out whose it is
                outputs.append(self.fail_broken(slot_of(item)))
        self._num_broken = 0 if made else self._num_broken + 1
        return made

    def fail_all(self, message: str) -> list[SessionFailed]:
        """Give up all sessions; their state is the caller's to make anew."""
        failed = [SessionFailed(slot.session_id, message) for slot in self._slots]
        for slot in list(self._slots):
            self._slots.release(slot)
        self._metrics.sessions_failed += len(failed)
        self._metrics.sessions = 0
        return failed
