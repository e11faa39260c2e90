"""The transition table."""

from __future__ import annotations

from model.turns.phase import TRANSITIONS, Cue, Phase


def test_every_phase_can_be_reached_and_left() -> None:
    """The transition table has no dead end and no phase that nothing leads to."""
    assert {start for start, _ in TRANSITIONS} == set(Phase)
    assert set(TRANSITIONS.values()) == set(Phase)
    assert {cue for _, cue in TRANSITIONS} == set(Cue)
