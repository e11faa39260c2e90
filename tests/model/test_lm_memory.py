"""What slots remember, through the model: whatever they share and wherever it lies, nobody notices.

`test_lm.py` holds the model itself to its rules; this its memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.cache.pages import PADDING
from model.cache.state import Kind, LMState, SlotMemory, Steps
from model.cache.store import MemoryConfig, Reading, Store
from model.config import LMConfig
from model.errors import RewindError
from model.transformer.lm import LM

CONFIG = LMConfig(
    dim=16,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    ff_dim=24,
    text_vocab=13,
    num_codebooks=2,
    codebook_size=7,
    audio_rank=4,
    delays=(0, 1),
    audio_entry_layer=1,
    text_window=4,
    audio_window=6,
    prefix_steps=3,
    rewind_steps=5,
    depth_dim=8,
    depth_layers=1,
    depth_heads=1,
    depth_ff=8,
)
NUM_SLOTS, HUGE = 4, 1e30
KINDS = [Kind.PREFIX, Kind.TEXT, Kind.LISTEN, Kind.SPEAK]


def make_lm(**changes: int) -> LM:
    """Return a tiny random model in double precision, so that no batch size tips a close call."""
    torch.manual_seed(0)
    lm = LM(replace(CONFIG, **changes)).eval()  # type: ignore[arg-type]  # sizes only
    lm.set_codebook_vectors(torch.randn(2, 7, 4))
    return lm.double().requires_grad_(requires_grad=False)


LM_ = make_lm()


def make_steps(kinds: Sequence[int], text: int, position: int) -> Steps:
    """Return one row of steps whose codes follow from their text."""
    kind = torch.tensor([list(kinds)])
    words = (torch.arange(len(kinds))[None] * 5 + text) % CONFIG.text_vocab
    codes = torch.stack((words % 7, (words * 3 + 1) % 7), dim=-1)
    absent = torch.full_like(codes, -1)
    user = torch.where((kind == Kind.LISTEN)[..., None], codes, absent)
    assistant = torch.where((kind == Kind.SPEAK)[..., None], codes, absent)
    return Steps(words, user, assistant, kind, torch.arange(len(kinds))[None] + position)


def stacked(rows: list[Steps]) -> Steps:
    """Put rows of equal length together."""
    names = ("text", "user", "assistant", "kind", "position")
    return Steps(*(torch.cat([getattr(row, name) for row in rows]) for name in names))


class Alone:
    """Hold one conversation in a state of its own, which never forks, rewinds or moves."""

    def __init__(self, steps: list[tuple[Kind, int]] | None = None) -> None:
        self.steps: list[tuple[Kind, int]] = []  # kind and text
        self._state = LM_.init_state(1)
        for kind, text in steps or []:
            self.step(kind, text)

    def step(self, kind: Kind, text: int) -> int:
        """Take a step and return the piece that it puts out."""
        steps = make_steps([kind], text, len(self.steps))
        self.steps.append((kind, text))
        return int(LM_.text_logits(LM_.step(steps, self._state, [0]))[0, -1].argmax())

    def possible(self, kind: Kind) -> Kind:
        """Return `kind`, or another if the prefix is full."""
        held = sum(k == Kind.PREFIX for k, _ in self.steps)
        return Kind.TEXT if kind == Kind.PREFIX and held == CONFIG.prefix_steps else kind


def fill(store: Store, page: int, value: float) -> None:
    """Fill a page with one number."""
    start = page * store.page_steps
    store.kv[:, :, :, start : start + store.page_steps] = value


def poison_free_pages(state: LMState) -> None:
    """Fill every page that no slot has with NaN."""
    for store, *of_slots in zip(
        state.stores, *(state.pages(slot) for slot in range(NUM_SLOTS)), strict=True
    ):
        taken = {page for pages in of_slots for page in pages}
        for page in set(range(store.waste // store.page_steps)) - taken:
            fill(store, page, torch.nan)


ACTIONS = st.one_of(
    st.tuples(
        st.just("step"),
        st.sets(st.integers(0, NUM_SLOTS - 1), min_size=1),
        st.lists(st.sampled_from(KINDS), min_size=NUM_SLOTS, max_size=NUM_SLOTS),
        st.integers(0, 12),
    ),
    st.tuples(
        st.sampled_from(["rewind", "fork", "park", "leave"]),
        st.integers(0, NUM_SLOTS - 1),
        st.integers(0, NUM_SLOTS - 1),
        st.integers(1, 5),
    ),
)


class Crowd:
    """Hold the same conversations in the slots of one state, in as few pages as will do."""

    def __init__(self, page_steps: int) -> None:
        self.state = LM_.init_state(NUM_SLOTS, MemoryConfig(page_steps=page_steps))
        self.alone = [Alone() for _ in range(NUM_SLOTS)]
        self.parked: dict[int, SlotMemory] = {}

    def step(self, slots: set[int], kinds: list[Kind], text: int) -> None:
        """Take a step in some slots together, and compare with each alone."""
        for slot in slots & set(self.parked):
            self.state.restore(slot, self.parked.pop(slot))
        order = sorted(slots)
        kinds = [self.alone[slot].possible(kinds[slot]) for slot in order]
        rows = [
            make_steps([kind], text + slot, len(self.alone[slot].steps))
            for slot, kind in zip(order, kinds, strict=True)
        ]
        hidden = LM_.step(stacked(rows), self.state, order)
        pieces = LM_.text_logits(hidden)[:, -1].argmax(-1).tolist()
        expected = [
            self.alone[slot].step(kind, text + slot)
            for slot, kind in zip(order, kinds, strict=True)
        ]
        assert pieces == expected

    def rewind(self, slot: int, _other: int, num_back: int) -> None:
        """Take back some steps, if that can still be done."""
        if slot in self.parked:
            return
        steps = self.alone[slot].steps[:-num_back]
        try:
            self.state.rewind(slot, len(steps))
        except RewindError:
            return
        self.alone[slot] = Alone(steps)

    def fork(self, slot: int, other: int, _number: int) -> None:
        """Let another conversation go on from here as well."""
        if slot == other or slot in self.parked:
            return
        self.state.fork(slot, other)
        self.parked.pop(other, None)
        self.alone[other] = Alone(self.alone[slot].steps)

    def park(self, slot: int, _other: int, _number: int) -> None:
        """Bring a conversation to host memory until it goes on."""
        if slot not in self.parked:
            self.parked[slot] = self.state.snapshot(slot)
            self.state.reset(slot)

    def leave(self, slot: int, _other: int, _number: int) -> None:
        """End a conversation; the next one begins in its slot."""
        self.state.reset(slot)
        self.parked.pop(slot, None)
        self.alone[slot] = Alone()


@settings(max_examples=20, deadline=None)
@given(actions=st.lists(ACTIONS, min_size=10, max_size=40), page_steps=st.sampled_from([1, 2, 3]))
def test_batched_equals_alone_whatever_happens(
    actions: list[tuple[str, Any, Any, int]], page_steps: int
) -> None:
    """Slots join, leave, fork, rewind and are parked at any time: token for token as if alone.

    Pages that nobody has hold NaN all the while.
    """
    crowd = Crowd(page_steps)
    for action, first, second, number in actions:
        poison_free_pages(crowd.state)
        getattr(crowd, action)(first, second, number)
    assert all(
        crowd.state.length(slot) in (len(crowd.alone[slot].steps), 0) for slot in range(NUM_SLOTS)
    )


def talk(
    state: LMState, slot: int, num_steps: int, before: Callable[[int], None] = lambda _: None
) -> list[int]:
    """Hold a conversation of mixed kinds; return the pieces that it puts out."""
    kinds = [Kind.PREFIX] * 3
    while len(kinds) < num_steps:
        kinds += [Kind.LISTEN] * 3 + [Kind.TEXT] * 2 + [Kind.SPEAK] * 4
    pieces = []
    for position, kind in enumerate(kinds[:num_steps]):
        before(position)
        steps = make_steps([kind], position % 11, position)
        hidden = LM_.step(steps, state, [slot])
        pieces.append(int(LM_.text_logits(hidden)[0, -1].argmax()))
    return pieces


def test_parked_and_back_equals_never_parked() -> None:
    """After any step, into pages that are not the same, which another has used meanwhile."""
    expected = talk(LM_.init_state(1), 0, 60)
    assert len(set(expected)) > 3
    state = LM_.init_state(2, MemoryConfig(page_steps=3, num_pages=12))

    def park(position: int) -> None:
        memory = state.snapshot(0)
        state.reset(0)
        talk(state, 1, position % 7)
        state.restore(0, memory)
        state.reset(1)

    assert talk(state, 0, 60, park) == expected


def test_a_slot_never_reads_anothers_pages() -> None:
    """Whatever others hold, huge numbers too; and what is shared is not changed by them."""
    expected = talk(LM_.init_state(1), 0, 40)
    state = LM_.init_state(3, MemoryConfig(page_steps=2))
    talk(state, 1, 30)

    def disturb(position: int) -> None:
        if position == 10:
            state.fork(0, 2)
        if position > 10:
            LM_.step(make_steps([Kind.SPEAK, Kind.TEXT], position % 9, position), state, [2])
        mine = [set(pages) for pages in state.pages(0)]
        for slot in (1, 2):
            for store, pages, own in zip(state.stores, state.pages(slot), mine, strict=True):
                for page in set(pages) - own:
                    fill(store, page, HUGE)

    assert talk(state, 0, 40, disturb) == expected


@pytest.mark.parametrize("reading", ["views", "reference"])
@pytest.mark.parametrize("num_pages", [None, 14])
def test_however_pages_are_read(reading: Reading, num_pages: int | None) -> None:
    """In place, gathered or by the kernels' reference: the same tokens."""
    expected = talk(LM_.init_state(1), 0, 50)
    memory = MemoryConfig(page_steps=3, num_pages=num_pages, reading=reading)
    state = LM_.init_state(3, memory)
    talk(state, 1, 9)
    assert talk(state, 2, 50) == expected


def test_nobody_fills_a_batch_up() -> None:
    """Rows of nobody change nothing for the others, take no pages and stay finite."""
    rows = [make_steps([Kind.TEXT], 3, 0), make_steps([Kind.PAD], 5, 0)]
    for reading in ("views", "reference"):
        state = LM_.init_state(2, MemoryConfig(reading=reading))
        hidden = LM_.step(stacked([*rows, rows[1]]), state, [1, PADDING, PADDING])
        alone = LM_.step(rows[0], LM_.init_state(1), [0])
        torch.testing.assert_close(hidden[:1], alone)
        assert hidden.isfinite().all()
        assert state.pages(0) == [[], []]


def test_an_hour_takes_no_more_than_its_windows() -> None:
    """45,000 frames of 80 ms in a call: pages, bytes and what is kept on the host stay flat."""
    lm = make_lm(rewind_steps=59)
    state = lm.init_state(2, MemoryConfig(page_steps=2))
    block = [Kind.LISTEN, Kind.TEXT, Kind.SPEAK, Kind.SPEAK, Kind.LISTEN, Kind.SPEAK] * 10
    frames_a_call = sum(kind > Kind.TEXT for kind in block)
    lm.step(make_steps([Kind.PREFIX] * 3, 0, 0), state, [0])
    uses, host, position = set(), set(), 3
    for call in range(45_000 // frames_a_call):
        if call % 100 == 50:  # the model itself, now and then: what it makes means something
            assert lm.step(make_steps(block, call % 9, position), state, [0]).isfinite().all()
            host.add(state.snapshot(0).num_bytes)
        else:
            state.advance([block], [0])
        position += len(block)
        if call > 20:
            uses.add(state.use)
    assert len(uses) == len(host) == 1
    (use,) = uses
    assert use.pages_used == use.pages_total // 2
    assert state.length(0) == position


@pytest.mark.parametrize("reading", ["views", "reference"])
def test_eight_bits_are_close(reading: Reading) -> None:
    """Outputs are off by little, and mostly the same tokens follow; the memory is a fraction."""
    expected = LM_.init_state(1)
    small = LM_.init_state(1, MemoryConfig(precision="int8", reading=reading))
    errors, sizes = [], []
    for position in range(60):
        kind = [Kind.LISTEN, Kind.TEXT, Kind.SPEAK][position // 4 % 3]
        steps = make_steps([kind], position % 11, position)
        exact, near = (LM_.step(steps, state, [0]) for state in (expected, small))
        errors.append((near - exact).norm() / exact.norm())
        sizes.append(exact.norm())
    assert 0 < max(errors) < 0.02
    assert small.use.bytes_total < expected.use.bytes_total / 5  # of double precision


def test_eight_bits_are_kept_exactly() -> None:
    """Forked, parked and rewound memory is the same to the bit."""
    memory = MemoryConfig(precision="int8", page_steps=2)
    expected = talk(LM_.init_state(1, memory), 0, 40)
    state = LM_.init_state(3, memory)

    def move(position: int) -> None:
        if position % 5 == 4:
            taken = state.snapshot(0)
            state.restore(0, taken)
            state.fork(0, 1)
            LM_.step(make_steps([Kind.SPEAK] * 3, 2, position), state, [0])
            state.rewind(0, position)

    assert talk(state, 0, 40, move) == expected
