"""The books of a slot's memory are right without a tensor in sight."""

from __future__ import annotations

import pytest

from model.cache.kinds import Kind
from model.cache.ledger import Ledger
from model.cache.pages import NO_PAGE, PADDING
from model.config import LMConfig
from model.errors import OutOfPagesError, RewindError
from model.family import Family

TURNS = LMConfig(audio_entry_layer=2, text_window=4, audio_window=4, prefix_steps=2, rewind_steps=2)
RING = LMConfig(
    audio_entry_layer=0,
    text_window=0,
    audio_window=4,
    prefix_steps=0,
    rewind_steps=2,
    family=Family(num_user_codebooks=8, text_out=2048),
)


def _columns(ledger: Ledger, kind: Kind, slot: int = 0) -> list[int | None]:
    """Take one step, and return where each group of layers writes it; None for nowhere."""
    rows = ledger.advance([[kind]], [slot])
    return [None if of_group is None else of_group[0].columns[0] for of_group in rows]


def test_a_listen_step_is_nothing_to_the_layers_below_the_entry() -> None:
    """The example of the module: the upper group counts it, the lower one takes no page."""
    ledger = Ledger(TURNS, 1, 2, None)
    low, high = ledger.groups
    assert _columns(ledger, Kind.LISTEN)[0] is None
    assert (low.pages(0), len(high.pages(0))) == ([], 1)
    low_column, high_column = _columns(ledger, Kind.SPEAK)
    assert low_column == low.areas.audio_column(0)
    assert high_column == high.areas.audio_column(1)
    assert ledger.length(0) == 2


def test_pages_that_were_taken_are_to_be_filled() -> None:
    """New ones with nothing, and of a fork with what was written to them so far."""
    ledger = Ledger(RING, 2, 2, None)
    (group,) = ledger.groups
    ledger.advance([[Kind.DUPLEX]], [0])
    (first,) = group.begun
    assert first[1] == NO_PAGE
    group.begun.clear()
    ledger.fork(0, 1)
    ((page, source),) = group.begun
    assert (source, page in group.pages(1)) == (first[0], True)


def test_rings_are_planned_together_as_one_by_one() -> None:
    """Columns follow from how many steps a ring has taken, those of nobody from nothing."""
    together, alone = Ledger(RING, 2, 2, None), Ledger(RING, 2, 2, None)
    for _ in range(9):
        held = together.advance_rings([Kind.DUPLEX, Kind.PAD], [1, PADDING])
        alone.advance([[Kind.DUPLEX]], [1])
        assert held.tolist() == [alone.length(1), 0]
        assert together.groups[0].tables.rows == alone.groups[0].tables.rows


def test_what_was_written_down_is_there_again() -> None:
    """In another slot, with pages of its own; and where there are none, nothing has changed."""
    ledger = Ledger(RING, 3, 2, 4)
    for _ in range(9):
        ledger.advance([[Kind.DUPLEX]], [0])
    record = ledger.record(0)
    with pytest.raises(OutOfPagesError):
        ledger.restore(1, record)
    assert ledger.length(1) == 0
    ledger.reset(0)
    ledger.restore(1, record)
    assert ledger.record(1) == record
    with pytest.raises(RewindError):
        ledger.rewind(1, 0)
    ledger.rewind(1, 7)
    assert ledger.length(1) == 7
