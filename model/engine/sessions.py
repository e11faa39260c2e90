"""Open, close and fail sessions: what the engines of all models do alike."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Generic, TypeVar

from model.engine.slots import HasSession, SlotTable
from model.errors import ParleyError
from model.messages import Close, Command, Open, Output, SessionCommand, SessionFailed
from model.metrics import EngineMetrics

_log = logging.getLogger(__name__)

S = TypeVar("S", bound=HasSession)


class Sessions(Generic[S]):
    """Carry commands to the sessions that they are for, and give up those that fail.

    Args:
        slots: which session has which.
        metrics: where sessions are counted.
        wipe: leaves nothing of a session in a slot's state.
    """

    def __init__(
        self, slots: SlotTable[S], metrics: EngineMetrics, wipe: Callable[[int], None]
    ) -> None:
        self._slots, self._metrics, self._wipe = slots, metrics, wipe

    @property
    def ids(self) -> list[str]:
        """Name the sessions that are open."""
        return [slot.session_id for slot in self._slots]

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
            except ParleyError as error:
                if (slot := self._slots.get(session_id)) is not None:
                    self.release(slot)
                return [SessionFailed(session_id, str(error))]
        if slot is None:
            return []  # it failed or was closed while the command was on its way
        if isinstance(command, Close):
            self.release(slot)
            return []
        try:
            return carry_out(slot, command)
        except ParleyError as error:
            return [self.fail(slot, str(error))]

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
        return self.fail(slot, "the engine failed on this session")

    def fail_all(self, message: str) -> list[SessionFailed]:
        """Give up all sessions; their state is the caller's to make anew."""
        failed = [SessionFailed(session_id, message) for session_id in self.ids]
        for slot in list(self._slots):
            self._slots.release(slot)
        self._metrics.sessions_failed += len(failed)
        self._metrics.sessions = 0
        return failed
