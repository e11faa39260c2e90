"""What the engines of all models do alike with their sessions."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from model.engine.sessions import Sessions
from model.engine.slots import SlotTable
from model.errors import EngineError
from model.messages import (
    AppendText,
    Cancel,
    ClearAudio,
    Close,
    Open,
    Output,
    SessionCommand,
    SessionFailed,
)
from model.metrics import EngineMetrics


@dataclass
class Row:
    """A slot that keeps what it was told."""

    index: int
    session_id: str
    told: list[SessionCommand] = field(default_factory=list)


class Core:
    """Takes commands down; what is written to it breaks it, as does a session without a voice."""

    def __init__(self, num_slots: int = 2) -> None:
        self.slots: SlotTable[Row] = SlotTable(num_slots)
        self.metrics = EngineMetrics()
        self.wiped: list[int] = []
        self.sessions = Sessions(self.slots, self.metrics, self.wiped.append)

    def apply(self, command: Open | Close | SessionCommand) -> list[Output]:
        """Carry out a command."""
        return self.sessions.apply(command, self._open, self._carry_out)

    def _open(self, command: Open) -> list[Output]:
        self.sessions.take(command.session_id, lambda index: Row(index, command.session_id))
        if not command.voice:
            raise EngineError("no voice")
        return []

    def _carry_out(self, slot: Row, command: SessionCommand) -> list[Output]:
        if isinstance(command, AppendText):
            raise EngineError("cannot read")
        slot.told.append(command)
        return []


def test_a_session_from_open_to_close() -> None:
    """Told what is for it, counted, and wiped in the end; nothing reaches it before or after."""
    core = Core()
    assert core.apply(ClearAudio("s")) == []
    assert core.apply(Open("s", "ann")) == []
    assert [slot.session_id for slot in core.slots] == ["s"]
    row = core.slots.get("s")
    assert row is not None
    core.apply(ClearAudio("s"))
    assert core.sessions.is_open(row)
    assert core.metrics.sessions == 1
    core.apply(Close("s"))
    core.apply(Cancel("s", 1))
    assert row.told == [ClearAudio("s")]
    assert not core.sessions.is_open(row)
    assert core.metrics.sessions == 0
    assert core.wiped == [0]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (Open("s", "ann"), "the session is open already"),
        (Open("u", "ann"), "all 2 sessions are taken"),
        (AppendText("s", "item", "user", "hello"), "cannot read"),
    ],
)
def test_what_cannot_be_carried_out(command: Open | AppendText, message: str) -> None:
    """Is said, and touches nobody else."""
    core = Core()
    for name in "st":
        core.apply(Open(name, "ann"))
    assert core.apply(command) == [SessionFailed(command.session_id, message)]
    assert core.slots.get("t") is not None


def test_a_session_that_cannot_begin() -> None:
    """Leaves its slot to others."""
    core = Core(1)
    assert core.apply(Open("s", "")) == [SessionFailed("s", "no voice")]
    assert core.wiped == [0]
    assert core.apply(Open("t", "ann")) == []


def test_all_are_given_up() -> None:
    """Each is told, and the slots are free."""
    core = Core()
    for name in "st":
        core.apply(Open(name, "ann"))
    assert core.sessions.fail_all("gone") == [SessionFailed(name, "gone") for name in "st"]
    assert list(core.slots) == []
    assert core.metrics.sessions_failed == 2
    assert not core.slots.is_full
