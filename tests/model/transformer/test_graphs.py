"""Steps through graphs: the same tokens as without, and nothing in them that cannot be captured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from model.cache.store import MemoryConfig
from model.codec.mimi import Mimi, MimiConfig
from model.config import LMConfig
from model.duplex.audio import AudioDuplex
from model.duplex.driver import Duplex, DuplexConfig
from model.duplex.work import Work
from model.errors import ConfigError
from model.family import Conditioner, Family
from model.sampling import Sampling
from model.transformer.condition import Vectors
from model.transformer.graphs import FrameGraphs, buckets, cuda_capture
from model.transformer.lm import LM

CONFIG = LMConfig(
    dim=16, num_layers=2, num_heads=2, num_kv_heads=2, ff_dim=16, text_vocab=12, num_codebooks=2,
    codebook_size=10, audio_rank=0, delays=(0, 1), text_window=0, audio_window=5, prefix_steps=0,
    rewind_steps=2, depth_dim=8, depth_layers=1, depth_heads=2, depth_ff=8,
    family=Family(num_user_codebooks=2, text_out=12, depth_sets=(0, 1)),
)  # fmt: skip
MIMI = MimiConfig(
    sample_rate_hz=200, ratios=(4, 2), filters=2, dim=16, num_layers=1, num_heads=2, ff_dim=32,
    window=6, codebook_size=10, codebook_dim=8, num_codebooks=2,
)  # fmt: skip
DRAWN = DuplexConfig(
    delays=(0, 0, 1, 0, 1),
    text_sampling=Sampling(temperature=1.0, top_k=6),
    audio_sampling=Sampling(temperature=1.0),
)
GREEDY = DuplexConfig(delays=DRAWN.delays)
LATE = replace(DRAWN, lag=2)
NUM_SLOTS = 3


def make(drive: DuplexConfig, device: str = "cpu") -> Duplex:
    """Return a small random model, its memory read through tables of pages."""
    torch.manual_seed(5)
    memory = MemoryConfig(page_steps=2, reading="reference")
    return Duplex(LM(CONFIG).eval().to(device), drive, NUM_SLOTS, 2, memory)


def with_codec(duplex: Duplex) -> AudioDuplex:
    """Return a model with a small random codec; in double precision, so that no code is close."""
    torch.manual_seed(6)
    return AudioDuplex(duplex, Mimi(MIMI).eval().double().to(duplex.state.device))


def again(work: Callable[[], Any]) -> Callable[[], Any]:
    """Stand in for a capture: run the work once, as it is captured, and from then on again."""
    work()
    return work


class NothingComesBack(TorchDispatchMode):
    """Refuse what a capture refuses: values that the host must see, and new data from it."""

    REFUSED = (
        "_local_scalar_dense", "nonzero", "masked_select", "unique", "equal.", "lift_fresh",
        "is_nonzero", "item",
    )  # fmt: skip

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation unless its result's shape or the program depends on a value."""
        name = str(func).removeprefix("aten.")
        assert not name.startswith(self.REFUSED), f"{name} cannot be captured"
        return func(*args, **(kwargs or {}))


def user_of(num_rows: int, seed: int, device: str = "cpu") -> Tensor:
    """Return a frame of codes for each row."""
    codes = torch.randint(10, (num_rows, 2), generator=torch.Generator().manual_seed(seed))
    return codes.to(device)


def check_same(drive: DuplexConfig, schedule: list[tuple[int, ...]], device: str) -> None:
    """Compare graphs with plain steps; `schedule` names who takes a step, -1 - slot a reset."""
    plain, captured = make(drive, device), make(drive, device)
    capture = again if device == "cpu" else cuda_capture
    graphs = FrameGraphs(captured, capture)
    for tick, slots in enumerate(schedule):
        if slots[0] < 0:
            plain.reset(-1 - slots[0])
            captured.reset(-1 - slots[0])
            continue
        user = user_of(len(slots), tick, device)
        forced = None
        if tick % 3 == 1:
            forced = torch.full((len(slots), 3), -2, device=device)
            forced[:, 0] = 3
        one = plain.step(slots, user, forced, slots)
        two = graphs.step(slots, user, forced, slots)
        assert torch.equal(one.tokens, two.tokens), tick
        assert torch.equal(one.chosen, two.chosen), tick
        assert torch.equal(one.is_finite, two.is_finite), tick
        torch.testing.assert_close(one.text_logits, two.text_logits)
        if tick % 7 == 6:
            calls = plain.num_calls(slots[0]) - 1
            assert (plain.rewind(slots[0], calls) is None) == (
                captured.rewind(slots[0], calls) is None
            )


def work_of(num_rows: int, seed: int) -> list[Work]:
    """Return what rows are fed: sound or codes, free or forced, wanted or not."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(num_rows):
        pcm = rng.normal(0, 0.1, MIMI.frame_samples).astype(np.float32)
        is_heard, is_forced, is_wanted = rng.random(3) < (0.6, 0.2, 0.7)
        user = None if is_heard else rng.integers(0, 10, 2)
        forced = np.array([3, -2, 4]) if is_forced else None
        rows.append(Work(pcm if is_heard else None, user, forced, is_wanted=bool(is_wanted)))
    return rows


def check_same_sound(drive: DuplexConfig, schedule: list[tuple[int, ...]], device: str) -> None:
    """Compare graphs with plain steps, codec and all; see `check_same`."""
    plain, captured = with_codec(make(drive, device)), with_codec(make(drive, device))
    graphs = FrameGraphs(captured, again if device == "cpu" else cuda_capture)
    age = dict.fromkeys(range(NUM_SLOTS), 0)
    for tick, slots in enumerate(schedule):
        if slots[0] < 0:
            plain.reset(-1 - slots[0])
            captured.reset(-1 - slots[0])
            age[-1 - slots[0]] = 0
            continue
        # Nobody wants a frame before the first is whole.
        work = [
            replace(each, is_wanted=each.is_wanted and age[slot] > drive.lag + 2)
            for slot, each in zip(slots, work_of(len(slots), tick), strict=True)
        ]
        one, two = plain.step(slots, work, slots), graphs.step(slots, work, slots)
        assert torch.equal(one.frame.tokens, two.frame.tokens), tick
        wanted = [i for i, each in enumerate(work) if each.is_wanted]
        torch.testing.assert_close(one.pcm[wanted], two.pcm[wanted])
        for slot in slots:
            age[slot] += 1


TICKS = st.one_of(
    st.permutations(range(NUM_SLOTS)).flatmap(
        lambda order: st.integers(1, NUM_SLOTS).map(lambda n: tuple(order[:n]))
    ),
    st.integers(0, NUM_SLOTS - 1).map(lambda slot: (-1 - slot,)),
)


@settings(max_examples=15, deadline=None)
@given(
    drive=st.sampled_from([DRAWN, GREEDY, LATE]),
    schedule=st.lists(TICKS, min_size=6, max_size=20),
)
def test_the_same_as_without_graphs(drive: DuplexConfig, schedule: list[tuple[int, ...]]) -> None:
    """Whoever joins, leaves or goes back: tokens and what was chosen are those of plain steps."""
    check_same(drive, schedule, "cpu")


@settings(max_examples=15, deadline=None)
@given(
    drive=st.sampled_from([DRAWN, GREEDY, LATE]),
    schedule=st.lists(TICKS, min_size=6, max_size=20),
)
def test_the_same_sound(drive: DuplexConfig, schedule: list[tuple[int, ...]]) -> None:
    """With the codec in the graph, what is heard and what is said is that of plain steps."""
    check_same_sound(drive, schedule, "cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_same_as_without_graphs_on_a_device() -> None:
    """So it is with what CUDA captured."""
    for drive in (GREEDY, DRAWN, LATE):
        schedule = [(0,), (0, 1), (2, 0, 1), (-2,), (1, 0), (1, 2, 0)] * 3
        check_same(drive, schedule, "cuda")
        check_same_sound(drive, schedule, "cuda")


def test_nothing_in_a_frame_waits_for_the_device() -> None:
    """What is captured never asks for a value, nor for data that the host makes."""
    checked = 0

    def under_watch(work: Callable[[], Any]) -> Callable[[], Any]:
        def watched() -> Any:
            nonlocal checked
            checked += 1
            with NothingComesBack():
                return work()

        return watched

    graphs = FrameGraphs(with_codec(make(LATE)), under_watch)
    for tick in range(4):
        graphs.step([0, 2], work_of(2, tick))
    assert checked == 4


def test_sizes() -> None:
    """Powers of two and all slots; a batch takes the smallest that it fits into."""
    assert buckets(1) == (1,)
    assert buckets(4) == (1, 2, 4)
    assert buckets(6) == (1, 2, 4, 6)


def test_memory_that_is_read_in_place_is_refused() -> None:
    """Views of pages change from call to call, so they cannot be captured."""
    duplex = Duplex(LM(CONFIG).eval(), GREEDY, 1)
    with pytest.raises(ConfigError, match='not "views"'):
        FrameGraphs(duplex, again)


def test_a_condition_given_after_the_capture_is_followed() -> None:
    """What a session is told is written to where captured steps read it."""
    assert CONFIG.family is not None
    conditioners = {
        "tone": Conditioner(dim=4, values=("sad", "glad"), num_rows=3),
        "voice": Conditioner(dim=4, how="cross"),
    }
    config = replace(CONFIG, family=replace(CONFIG.family, conditioners=conditioners))
    torch.manual_seed(5)
    lm = LM(config).eval()
    voice = Vectors(torch.randn(3, 4), torch.ones(3, dtype=torch.bool))
    told = lm.conditioners({"tone": "glad", "voice": voice})
    memory = MemoryConfig(page_steps=2, reading="reference")
    plain, captured = (
        Duplex(lm, GREEDY, NUM_SLOTS, 2, memory, told.num_attended) for _ in range(2)
    )
    graphs = FrameGraphs(captured, again)
    places = captured.state.added, captured.state.cross
    for duplex in (plain, captured):
        duplex.set_condition(1, told, None)
    for tick in range(4):
        user = user_of(1, tick).expand(2, -1)
        one, two = plain.step([0, 1], user), graphs.step([0, 1], user)
        torch.testing.assert_close(one.text_logits, two.text_logits)
        assert not torch.allclose(two.text_logits[0], two.text_logits[1])
    assert captured.state.added is places[0]
    assert captured.state.cross is places[1]
