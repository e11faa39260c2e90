"""What a state plans: columns, live ranges and masks, without any model."""

from __future__ import annotations

import pytest
import torch

from model.config import LMConfig
from model.state import Kind, LMState, StepPlan

# Columns: text ring 0..5, scratch 6, prefix 7..8, audio ring 9..15.
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


def make_state(num_slots: int = 2) -> LMState:
    """Return an empty state."""
    return LMState(CONFIG, num_slots, torch.float32, torch.device("cpu"))


def visible(plan: StepPlan, row: int = 0, step: int = 0) -> list[int]:
    """Return the columns that a step sees."""
    return [plan.live.start + int(i) for i in (plan.mask[row, 0, step] == 0).nonzero()]


def column(plan: StepPlan) -> int:
    """Return the column of the only step of a plan."""
    got = plan.index[1]
    assert isinstance(got, int)
    return got


def test_memory_is_what_the_windows_say() -> None:
    """One scratch column, the prefix, and two rings with their slack."""
    assert make_state(3).kv.shape == (2, 2, 3, 2, 1 + 2 + (4 + 2) + (5 + 2), 8)


def test_rings_grow_outwards_from_the_prefix() -> None:
    """A young session occupies one narrow range."""
    state = make_state()
    for kind, expected in (
        (Kind.PREFIX, 7),
        (Kind.TEXT, 5),
        (Kind.SPEAK, 9),
        (Kind.TEXT, 4),
        (Kind.LISTEN, 10),
    ):
        _, high = state.advance([[kind]], [0])
        assert column(high) == expected
    assert high.live == slice(4, 11)
    assert visible(high) == [4, 5, 7, 9, 10]


def test_windows_move_and_rings_wrap() -> None:
    """After many steps exactly the newest of each ring are visible, and the prefix."""
    state = make_state()
    state.advance([[Kind.PREFIX]], [0])
    for step in range(20):
        _, high = state.advance([[Kind.TEXT]], [0])
        newest = [5 - ordinal % 6 for ordinal in range(max(0, step - 3), step + 1)]
        assert visible(high) == sorted([*newest, 7])
    for step in range(20):
        _, high = state.advance([[Kind.SPEAK]], [0])
        audio = [9 + ordinal % 7 for ordinal in range(max(0, step - 4), step + 1)]
        assert visible(high) == sorted([*newest, 7, *audio])
    assert high.live == slice(0, 16)


def test_listen_keys_do_not_exist_below_their_entry() -> None:
    """There they go to the scratch column, and nobody but themselves looks at it."""
    state = make_state()
    state.advance([[Kind.SPEAK, Kind.LISTEN]], [0])
    low, high = state.advance([[Kind.SPEAK, Kind.LISTEN]], [0])
    assert visible(high, step=0) == [9, 10, 11]
    assert visible(low, step=0) == [9, 11]
    assert 6 in visible(low, step=1)
    assert isinstance(low.index[1], torch.Tensor)
    assert low.index[1].tolist() == [[11, 6]]
    # A SPEAK step that takes over the column of a forgotten LISTEN step exists everywhere.
    for _ in range(5):
        low, high = state.advance([[Kind.SPEAK]], [0])
    assert visible(low) == visible(high)


def test_padding_writes_to_the_scratch_column() -> None:
    """It counts for nothing and sees nothing else."""
    state = make_state()
    _, high = state.advance([[Kind.TEXT, Kind.TEXT], [Kind.TEXT, Kind.PAD]], [0, 1])
    assert isinstance(high.index[1], torch.Tensor)
    assert high.index[1].tolist() == [[5, 4], [5, 6]]
    assert visible(high, row=1, step=1) == [6]
    assert (state.length(0), state.length(1)) == (2, 1)


@pytest.mark.parametrize(
    ("slots", "expected"),
    [
        ([0], [(0, 1, 0, 1)]),
        ([1, 2, 3], [(0, 3, 1, 4)]),
        ([0, 2, 3, 1], [(0, 1, 0, 1), (1, 3, 2, 4), (3, 4, 1, 2)]),
        ([3, 2], [(0, 1, 3, 4), (1, 2, 2, 3)]),
    ],
)
def test_neighbouring_slots_share_a_view(
    slots: list[int], expected: list[tuple[int, int, int, int]]
) -> None:
    """Rows are grouped into runs of ascending slots."""
    _, high = make_state(4).advance([[Kind.TEXT]] * len(slots), slots)
    runs = [(rows.start, rows.stop, s.start, s.stop) for rows, s in high.runs]
    assert runs == expected


def test_conditions_belong_to_a_slots_memory() -> None:
    """What is summed or attended to is forked, and restored into a state that has had none yet."""
    state = make_state()
    state.added = torch.randn(2, 16)
    state.cross = torch.randn(2, 2, 2, 2, 3, 8)
    added, cross = state.added[0].clone(), state.cross[:, :, 0].clone()
    memory = state.snapshot(0)
    assert memory.num_bytes >= added.nbytes + cross.nbytes
    state.fork(0, 1)
    other = make_state(3)
    other.restore(2, memory)
    for got, slot in ((state, 1), (other, 2)):
        assert got.added is not None
        assert got.cross is not None
        assert torch.equal(got.added[slot], added)
        assert torch.equal(got.cross[:, :, slot], cross)
