"""What a state plans: columns, what is seen, and pages, without any model."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.cache.ledger import Row
from model.cache.pages import PADDING
from model.cache.plan import PagedPlan
from model.cache.state import Kind, LMState
from model.cache.store import MemoryConfig
from model.config import LMConfig
from model.errors import EngineError, OutOfPagesError, RewindError
from model.family import Conditioner, Family

# Columns of a slot in pages of 2: text ring 0..5, prefix 6..7, audio ring 8..15.
CONFIG = LMConfig(
    dim=16,
    num_layers=2,
    num_heads=2,
    num_kv_heads=2,
    audio_entry_layer=1,
    text_window=4,
    audio_window=5,
    prefix_steps=2,
    rewind_steps=2,
)
PAGES = 8  # of one slot, in one store


def make_state(num_slots: int = 2, num_pages: int | None = None) -> LMState:
    """Return an empty state."""
    memory = MemoryConfig(page_steps=2, num_pages=num_pages)
    return LMState(CONFIG, num_slots, torch.float32, torch.device("cpu"), memory)


def plan(state: LMState, *kinds: Kind, slot: int = 0) -> tuple[Row | None, Row]:
    """Take steps in one slot; return what is planned below the entry layer, and above."""
    low, high = state.plan([list(kinds)], [slot])
    assert high is not None
    return None if low is None else low[0], high[0]


def visible(row: Row | None, step: int = -1) -> list[int]:
    """Return the columns that a step sees."""
    assert row is not None
    return sorted(c for start, stop in row.seen[step] for c in range(start, stop))


def test_rings_grow_outwards_from_the_prefix() -> None:
    """A young session occupies one narrow range, and only the pages in it."""
    state = make_state()
    for kind, expected in (
        (Kind.PREFIX, 6),
        (Kind.TEXT, 5),
        (Kind.SPEAK, 8),
        (Kind.TEXT, 4),
        (Kind.LISTEN, 9),
    ):
        _, high = plan(state, kind)
        assert high.columns == [expected]
    assert high.live == (4, 10)
    assert visible(high) == [4, 5, 6, 8, 9]
    assert [len(pages) for pages in state.pages(0)] == [3, 3]


def test_windows_move_and_rings_wrap() -> None:
    """After many steps exactly the newest of each ring are visible, and the prefix."""
    state = make_state()
    plan(state, Kind.PREFIX)
    for step in range(20):
        _, high = plan(state, Kind.TEXT)
        newest = [5 - ordinal % 6 for ordinal in range(max(0, step - 3), step + 1)]
        assert visible(high) == sorted([*newest, 6])
    for step in range(20):
        _, high = plan(state, Kind.SPEAK)
        audio = [8 + ordinal % 8 for ordinal in range(max(0, step - 4), step + 1)]
        assert visible(high) == sorted([*newest, 6, *audio])
    assert high.live == (0, 16)
    assert len(high.seen[0]) == 5


def test_listen_steps_do_not_exist_below_their_entry() -> None:
    """There they take no room, but time passes: what was spoken long ago is forgotten."""
    state = make_state()
    low, high = plan(state, Kind.SPEAK, Kind.LISTEN, Kind.SPEAK)
    assert low is not None
    assert low.columns == [8, None, 9]
    assert visible(low) == [8, 9]
    assert visible(high) == [8, 9, 10]
    plan(state, Kind.LISTEN)
    assert plan(state, Kind.LISTEN)[0] is None  # no step enters these layers
    low, high = plan(state, Kind.LISTEN, Kind.TEXT)
    assert visible(low) == [5, 9]
    assert visible(high) == [5, 9, 10, 11, 12, 13]
    low, _ = plan(state, Kind.LISTEN, Kind.LISTEN, Kind.TEXT)
    assert visible(low) == [4, 5]
    assert [len(pages) for pages in state.pages(0)] == [2, 5]


def test_padding_is_written_nowhere() -> None:
    """It counts for nothing, and rows of nobody take no slot."""
    state = make_state()
    kind = [[Kind.TEXT, Kind.TEXT], [Kind.TEXT, Kind.PAD], [Kind.PAD] * 2, [Kind.PAD] * 2]
    _, rows = state.plan(kind, [0, 1, PADDING, PADDING])
    assert rows is not None
    assert [row.columns for row in rows] == [[5, 4], [5, None], [None] * 2, [None] * 2]
    assert visible(rows[2]) == []
    assert (state.length(0), state.length(1)) == (2, 1)


def test_pages_are_taken_as_a_slot_grows_and_no_more() -> None:
    """Up to its windows; a call of any length has no more, and a rewind gives back what it can."""
    state = make_state()
    assert state.use.pages_used == 0
    for _ in range(3):
        plan(state, *[Kind.SPEAK] * 2)
    assert state.use.pages_used == 2 * 3
    assert state.use.bytes_used == state.use.bytes_total * 3 // (2 * PAGES + 1)
    state.rewind(0, 1)
    assert state.use.pages_used == 2 * 1
    for _ in range(50):
        plan(state, Kind.TEXT, Kind.SPEAK)
    plan(state, Kind.PREFIX)
    assert state.use.pages_used == 2 * PAGES
    state.rewind(0, state.length(0) - 3)
    state.reset(0)
    assert state.use.pages_used == 0


RING = replace(
    CONFIG,
    audio_entry_layer=0,
    text_window=0,
    prefix_steps=0,
    rewind_steps=3,
    family=Family(num_user_codebooks=8, text_out=12, depth_sets=tuple(range(8))),
)
OPERATIONS = st.one_of(
    st.tuples(st.just("step"), st.permutations([0, 1, 2, PADDING]), st.integers(1, 4)),
    st.tuples(st.just("fork"), st.permutations([0, 1, 2]), st.just(0)),
    st.tuples(st.just("rewind"), st.permutations([0, 1, 2]), st.integers(1, 3)),
    st.tuples(st.just("reset"), st.permutations([0, 1, 2]), st.just(0)),
)


@settings(max_examples=40, deadline=None)
@given(operations=st.lists(OPERATIONS, max_size=40))
def test_rings_are_planned_together_as_they_are_one_by_one(operations: list[Any]) -> None:
    """Where a slot is one ring, a step of many is planned at once, to the same end."""
    memory = MemoryConfig(page_steps=2, reading="reference")
    together, one_by_one = (
        LMState(RING, 3, torch.float32, torch.device("cpu"), memory) for _ in range(2)
    )
    for name, order, num in operations:
        match name:
            case "step":
                slots = order[:num]
                kind = [[Kind.PAD if slot == PADDING else Kind.DUPLEX] for slot in slots]
                (plan,) = together.plan_paged(kind, slots)
                (rows,) = one_by_one.plan(kind, slots)
                assert plan is not None
                assert rows is not None
                table = np.array([row.pages for row in rows], np.int32)
                expected = PagedPlan.of(rows, table, one_by_one.stores[0])
                for part in ("columns", "table", "spans"):
                    assert torch.equal(getattr(plan, part), getattr(expected, part)), part
            case "fork":
                for state in (together, one_by_one):
                    state.fork(order[0], order[1])
            case "rewind" if together.length(order[0]) >= num:
                length = together.length(order[0]) - num
                for state in (together, one_by_one):
                    with contextlib.suppress(RewindError):
                        state.rewind(order[0], length)
            case "reset":
                for state in (together, one_by_one):
                    state.reset(order[0])
            case _:
                pass
        lengths = [[state.length(slot) for slot in range(3)] for state in (together, one_by_one)]
        assert lengths[0] == lengths[1]
        assert together.use == one_by_one.use


def test_nobody_has_room_even_where_there_are_no_pages() -> None:
    """When memory is so short that everyone was left out, the question can still be asked."""
    state = make_state(num_pages=1)
    plan(state, Kind.SPEAK)
    assert not state.has_room([[Kind.SPEAK]], [1])
    assert state.has_room([], [])


def test_running_out_of_pages_changes_nothing() -> None:
    """Who asks is told, and goes on once another has given way."""
    state = make_state(3, num_pages=4)
    plan(state, *[Kind.SPEAK] * 3, slot=0)
    plan(state, Kind.SPEAK, slot=1)
    more = [Kind.TEXT, Kind.SPEAK, Kind.SPEAK]
    with pytest.raises(OutOfPagesError, match="2 pages are needed, 1 of 4 free"):
        plan(state, *more, slot=1)
    assert not state.has_room([more], [1])
    memory = state.snapshot(0)
    with pytest.raises(OutOfPagesError, match="2 pages are needed, 1 of 4 free"):
        state.restore(2, memory)
    assert visible(plan(state, Kind.TEXT, slot=1)[1]) == [5, 8]
    with pytest.raises(OutOfPagesError, match="1 pages are needed, 0 of 4 free"):
        state.fork(0, 2)
    assert [state.length(slot) for slot in range(3)] == [3, 2, 0]
    state.reset(0)
    assert state.has_room([more], [1])
    state.restore(2, memory)
    assert [state.length(slot) for slot in range(3)] == [0, 2, 3]


def test_forks_share_whole_pages_until_they_are_written() -> None:
    """What is still being filled is copied at once, the rest when the ring comes round to it."""
    state = make_state()
    plan(state, Kind.PREFIX, Kind.PREFIX)
    plan(state, *[Kind.SPEAK] * 3)
    before = state.use.pages_used
    state.fork(0, 1)
    assert state.use.pages_used == before + 2  # the half-filled page, in both stores
    (low0, high0), (low1, high1) = state.pages(0), state.pages(1)
    assert (low0[:2], high0[:2]) == (low1[:2], high1[:2])
    assert (low0[2], high0[2]) != (low1[2], high1[2])
    for _ in range(20):
        plan(state, Kind.SPEAK, slot=1)
    assert state.pages(0) == [low0, high0]
    assert set(state.pages(1)[1]) & set(high0) == {high0[0]}  # the pinned prefix stays shared
    state.reset(0)
    assert high0[0] in state.pages(1)[1]


def told_state(num_slots: int, num_attended: int = 3) -> LMState:
    """Return an empty state of a model that is told something."""
    family = Family(
        num_user_codebooks=1,
        text_out=8,
        conditioners={"tone": Conditioner(dim=4), "voice": Conditioner(dim=4, how="cross")},
    )
    config = replace(CONFIG, family=family)
    memory = MemoryConfig(page_steps=2)
    cpu = torch.device("cpu")
    return LMState(config, num_slots, torch.float32, cpu, memory, num_attended)


def test_conditions_belong_to_a_slots_memory() -> None:
    """What is summed or attended to is forked and restored, and never moves to another place."""
    state, other = told_state(2), told_state(3)
    places = []
    for each in (state, other):
        assert each.added is not None
        assert each.cross is not None
        assert not each.added.any()
        assert not each.cross.any()
        places.append((each.added, each.cross))
    (added, cross), (other_added, other_cross) = places
    added[0], cross[:, :, 0] = torch.randn(16), torch.randn(2, 2, 2, 3, 8)
    memory = state.snapshot(0)
    assert memory.num_bytes >= added[0].nbytes + cross[:, :, 0].nbytes
    state.fork(0, 1)
    other.restore(2, memory)
    assert torch.equal(added[1], added[0])
    assert torch.equal(cross[:, :, 1], cross[:, :, 0])
    assert torch.equal(other_added[2], added[0])
    assert torch.equal(other_cross[:, :, 2], cross[:, :, 0])
    state.reset(0)
    assert not added[0].any()
    assert not cross[:, :, 0].any()
    assert state.added is added
    assert other.cross is other_cross


def test_memory_of_a_model_that_is_told_something_else_is_refused() -> None:
    """A condition of another length, or none at all, does not fit; nothing has changed then."""
    state = told_state(1)
    for other in (told_state(1, num_attended=2), told_state(1, num_attended=0), make_state(1)):
        plan(other, Kind.SPEAK)
        with pytest.raises(EngineError, match="expected conditions of"):
            state.restore(0, other.snapshot(0))
    assert state.length(0) == 0
