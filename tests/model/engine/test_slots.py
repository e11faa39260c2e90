"""Slots and what is left to play."""

from __future__ import annotations

import pytest
import torch

from model.engine.slots import Playout, SlotTable

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

    class Program:
        def __init__(self, session_id: str) -> None:
            self.session_id = session_id

    table = SlotTable(3)
    a, b, _ = (table.take(Program(name), torch.Generator()) for name in "abc")  # type: ignore[arg-type]
    assert [s.index for s in table] == [0, 1, 2]
    table.release(b)
    table.release(a)
    assert table.take(Program("d"), torch.Generator()).index == 0  # type: ignore[arg-type]
    assert table.get("b") is None
    assert len(table) == 2
