"""Slots and what is left to play."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import pytest

from model.engine.slots import SlotTable
from model.turns.slot import Playout

NOW_S = 50.0


def test_playout_runs_on_after_a_gap() -> None:
    """Audio lines up behind earlier audio; if that has run out, it starts now and was late."""
    playout = Playout()
    assert not playout.add(0.1, NOW_S)
    assert not playout.add(0.1, NOW_S + 0.05)
    assert playout.ends_s == pytest.approx(NOW_S + 0.2)
    assert playout.add(0.1, NOW_S + 1.0)
    assert playout.ends_s == pytest.approx(NOW_S + 1.1)


def test_slots_are_given_lowest_first_and_reused() -> None:
    """Neighbouring slots make the fastest batches, so the low ones are used first."""

    @dataclass
    class Row:
        index: int
        session_id: str

    table: SlotTable[Row] = SlotTable(3)
    a, b, _ = (table.take(name, partial(Row, session_id=name)) for name in "abc")
    assert [s.index for s in table] == [0, 1, 2]
    assert table.is_full
    table.release(b)
    table.release(a)
    assert table.take("d", partial(Row, session_id="d")).index == 0
    assert table.get("b") is None
    assert len(table) == 2
