"""The backbone: streamed equals offline, memory stays inside its windows and its slot."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from model.cache.state import Kind, LMState, Steps
from model.cache.store import MemoryConfig
from model.config import LMConfig
from model.errors import EngineError, RewindError
from model.transformer.lm import LM

CONFIG = LMConfig(
    dim=32,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    ff_dim=48,
    text_vocab=20,
    num_codebooks=3,
    codebook_size=11,
    audio_rank=6,
    delays=(0, 1, 1),
    audio_entry_layer=2,
    text_window=5,
    audio_window=7,
    prefix_steps=3,
    rewind_steps=4,
    depth_dim=16,
    depth_layers=2,
    depth_heads=2,
    depth_ff=24,
)

# Logits of the first text pieces and the codes, as first computed (fp32, CPU).
GOLDEN_LOGITS = [
    [0.81546, 1.07013, -0.96858, -0.54075],
    [0.23546, 0.79396, 1.50978, -1.44922],
    [0.47108, -0.17361, 1.61836, 0.59976],
    [0.1629, 0.24493, -0.75268, 1.01631],
    [1.084, -0.18542, 1.1427, -0.8407],
    [-0.97596, -0.13613, -0.43011, 0.36333],
]
GOLDEN_CODES = [[2, 0, 3], [9, 7, 5], [1, 8, 10], [2, 3, 4], [0, 0, 3], [8, 8, 7]]


def make_lm(seed: int = 0, **changes: object) -> LM:
    """Return a tiny random model whose every part matters."""
    torch.manual_seed(seed)
    config = dataclasses.replace(CONFIG, **changes)  # type: ignore[arg-type]  # test shorthand
    lm = LM(config).eval()
    shape = (config.num_codebooks, config.codebook_size, config.audio_rank)
    lm.set_codebook_vectors(torch.randn(shape))
    for audio in (lm.user_emb, lm.assistant_emb):
        torch.nn.init.normal_(audio.get_parameter("semantic_emb.weight"))
    return lm


def make_steps(
    kinds: list[list[Kind]], seed: int, config: LMConfig = CONFIG, jump: int = 0
) -> Steps:
    """Return random steps of given kinds; rows shorter than the longest end in PAD."""
    rng = torch.Generator().manual_seed(seed)
    num_rows, num_steps = len(kinds), max(len(row) for row in kinds)
    kind = torch.full((num_rows, num_steps), int(Kind.PAD))
    for row, row_kinds in enumerate(kinds):
        kind[row, : len(row_kinds)] = torch.tensor([int(k) for k in row_kinds])
    shape = (num_rows, num_steps, config.num_codebooks)
    user = torch.randint(-1, config.codebook_size, shape, generator=rng)
    assistant = torch.randint(-1, config.codebook_size, shape, generator=rng)
    user[kind != Kind.LISTEN] = -1
    assistant[kind != Kind.SPEAK] = -1
    stride = torch.randint(1, 2 + jump, (num_rows, num_steps), generator=rng)
    text = torch.randint(0, config.text_vocab, (num_rows, num_steps), generator=rng)
    return Steps(text, user, assistant, kind, stride.cumsum(1) - 1)


def random_kinds(num_steps: int, seed: int) -> list[Kind]:
    """Return a prefix and then runs of text, listening and speaking, as dialogues have."""
    rng = torch.Generator().manual_seed(seed)
    kinds = [Kind.PREFIX] * int(torch.randint(1, 4, (), generator=rng))
    while len(kinds) < num_steps:
        kind = [Kind.TEXT, Kind.LISTEN, Kind.SPEAK][int(torch.randint(3, (), generator=rng))]
        kinds += [kind] * int(torch.randint(1, 6, (), generator=rng))
    return kinds[:num_steps]


def stream(
    lm: LM, steps: Steps, state: LMState, slots: list[int], sizes: list[int]
) -> torch.Tensor:
    """Feed steps in calls of the given sizes, repeated as needed."""
    parts, start, call = [], 0, 0
    while start < steps.text.shape[1]:
        stop = start + sizes[call % len(sizes)]
        parts.append(lm.step(steps.columns(start, stop), state, slots))
        start, call = stop, call + 1
    return torch.cat(parts, dim=1)


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    """Compare outputs of two orders of the same fp32 operations."""
    torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("sizes", [[1], [3, 1, 2], [5], [64]])
@pytest.mark.parametrize("entry", [0, 1, 2])
@pytest.mark.parametrize("seed", range(2))
def test_streamed_equals_offline(sizes: list[int], entry: int, seed: int) -> None:
    """Any mix of kinds in any call sizes gives what training computes, rings wrapped often."""
    lm = make_lm(seed, audio_entry_layer=entry)
    kinds = [random_kinds(60 - 7 * row, 10 * seed + row) for row in range(3)]
    steps = make_steps(kinds, seed, jump=3)
    with torch.no_grad():
        offline = lm(steps)
    streamed = stream(lm, steps, lm.init_state(3), [0, 1, 2], sizes)
    real = steps.kind != Kind.PAD
    close(streamed[real], offline[real])
    assert streamed.isfinite().all()


def test_words_outlive_audio() -> None:
    """A text step outside the audio window still changes the output; an old frame does not."""
    lm = make_lm(num_layers=1, audio_entry_layer=0)
    kinds = [[Kind.TEXT] + [Kind.SPEAK] * 12]
    steps = make_steps(kinds, 1)
    with torch.no_grad():
        base = lm(steps)[0, -1]
        steps.text[0, 0] = (steps.text[0, 0] + 1) % 20
        assert not torch.equal(lm(steps)[0, -1], base)
        base = lm(steps)[0, -1]
        steps.text[0, 1] = (steps.text[0, 1] + 1) % 20
        torch.testing.assert_close(lm(steps)[0, -1], base, atol=0, rtol=0)


def test_no_gradient_from_the_future() -> None:
    """An output depends on no later step; LISTEN steps do reach later ones."""
    lm = make_lm()
    steps = make_steps([random_kinds(30, 5)], 2)
    embedded: list[torch.Tensor] = []

    def tap(
        steps: Steps, patches: torch.Tensor | None = None, places: torch.Tensor | None = None
    ) -> torch.Tensor:
        embedded.append(LM.embed(lm, steps, patches, places).detach().requires_grad_())
        return embedded[-1]

    lm.embed = tap  # type: ignore[method-assign]  # taps the inputs
    hidden = lm(steps)
    for step in (0, 7, 19):
        (grad,) = torch.autograd.grad(hidden[0, step].sum(), embedded[0], retain_graph=True)
        reach = grad[0].abs().sum(dim=-1) > 0
        assert not reach[step + 1 :].any()
        assert reach[step]


def test_listen_steps_skip_the_low_layers() -> None:
    """Poisoned low layers change nothing for a conversation of LISTEN steps."""
    lm = make_lm()
    steps = make_steps([[Kind.LISTEN] * 20], 3)
    expected = stream(lm, steps, lm.init_state(1), [0], [1])
    for layer in lm.layers[: CONFIG.audio_entry_layer]:
        layer.get_parameter("mlp.down.weight").data.fill_(torch.nan)
    got = stream(lm, steps, lm.init_state(1), [0], [1])
    assert torch.equal(got, expected)
    with torch.no_grad():
        close(lm(steps), expected)


def test_absent_streams_are_exact_zero() -> None:
    """Code -1 contributes nothing at all."""
    lm = make_lm()
    steps = make_steps([[Kind.TEXT] * 4], 0)
    assert torch.equal(lm.embed(steps), lm.text_emb(steps.text))


def poison(state: LMState, slots: list[int]) -> None:
    """Fill the pages that slots have with NaN."""
    for store, pages in zip(
        state.stores, zip(*(state.pages(slot) for slot in slots), strict=True), strict=True
    ):
        for page in (page for of_slot in pages for page in of_slot):
            store.kv[:, :, :, page * store.page_steps :][..., : store.page_steps, :] = torch.nan


@pytest.mark.parametrize("num_pages", [None, 25])
def test_slots_are_isolated(num_pages: int | None) -> None:
    """Free pages and those of others may hold NaN: nothing of it is read, nothing is written.

    With fewer pages than all slots can take, they lie in between each other.
    """
    lm = make_lm()
    steps = make_steps([random_kinds(30, seed) for seed in range(5)], 4)
    memory = MemoryConfig(page_steps=3, num_pages=num_pages)
    expected = stream(lm, steps.rows(0, 2), lm.init_state(2), [0, 1], [2])
    state = lm.init_state(5, memory)
    for store in state.stores:
        store.kv.fill_(torch.nan)
    others = [1, 2, 4] if num_pages is None else [2]
    got = []
    for start in range(0, 30, 2):
        for other in others:
            one = steps.rows(other, other + 1).columns(start, start + 2)
            lm.step(one, state, [other])
        poison(state, others)
        got.append(lm.step(steps.rows(0, 2).columns(start, start + 2), state, [3, 0]))
        assert all(
            store.kv[:, :, :, page * 3 : page * 3 + 3].isnan().all()
            for other in others
            for store, pages in zip(state.stores, state.pages(other), strict=True)
            for page in pages
        )
    close(torch.cat(got, dim=1), expected)


def test_stale_columns_are_not_read() -> None:
    """What was in pages before does not matter."""
    lm = make_lm()
    steps = make_steps([random_kinds(40, 8)], 4)
    state = lm.init_state(1)
    expected = stream(lm, steps, state, [0], [1])
    state = lm.init_state(1)
    for store in state.stores:
        store.kv.fill_(1e3)
    assert torch.equal(stream(lm, steps, state, [0], [1]), expected)


def test_batched_equals_alone() -> None:
    """A row's output does not depend on who shares the batch, nor on its slot."""
    lm = make_lm()
    kinds = [random_kinds(25, seed) for seed in range(4)]
    steps = make_steps(kinds, 6)
    together = stream(lm, steps, lm.init_state(6), [4, 0, 1, 5], [2])
    for row in range(4):
        alone = stream(lm, steps.rows(row, row + 1), lm.init_state(1), [0], [1])
        close(together[row : row + 1], alone)


def test_reset_leaves_others_bit_equal() -> None:
    """Resetting a slot frees its pages and touches nothing else."""
    lm = make_lm()
    steps = make_steps([random_kinds(20, 1), random_kinds(20, 2)], 7)
    state = lm.init_state(2)
    stream(lm, steps, state, [0, 1], [4])
    other = state.snapshot(1)
    state.reset(0)
    assert state.length(0) == 0
    assert state.length(1) == 20
    assert state.pages(0) == [[], []]
    for before, after in zip(other.contents, state.snapshot(1).contents, strict=True):
        assert torch.equal(before.kv, after.kv)
    again = stream(lm, steps.rows(0, 1), state, [0], [4])
    close(again, stream(lm, steps.rows(0, 1), lm.init_state(1), [0], [4]))


@pytest.mark.parametrize("num_back", [1, 3, 4])
@pytest.mark.parametrize("start", [2, 9, 30, 47])
def test_rewind_is_exact(start: int, num_back: int) -> None:
    """Going back and on another way equals never having gone the first way."""
    lm = make_lm()
    kinds = random_kinds(60, 3)
    steps = make_steps([kinds], 8)
    other = make_steps([random_kinds(40, 9)[3:]], 9)
    other = dataclasses.replace(other, position=other.position + start)
    expected_state = lm.init_state(1)
    stream(lm, steps.columns(0, start), expected_state, [0], [1])
    expected = stream(lm, other, expected_state, [0], [1])
    state = lm.init_state(1)
    stream(lm, steps.columns(0, start + num_back), state, [0], [1])
    state.rewind(0, start)
    assert state.length(0) == start
    assert torch.equal(stream(lm, other, state, [0], [1]), expected)


def test_rewind_beyond_the_slack_is_refused() -> None:
    """Overwritten memory is not pretended to be there; the state stays usable."""
    lm = make_lm()
    steps = make_steps([[Kind.SPEAK] * 30], 8)
    state = lm.init_state(1)
    stream(lm, steps, state, [0], [1])
    with pytest.raises(RewindError, match="newest 4"):
        state.rewind(0, 25)
    with pytest.raises(RewindError, match="has 30"):
        state.rewind(0, 31)
    assert state.length(0) == 30
    state.rewind(0, 26)
    # The ring still lacks what 30 steps overwrote, so going further back is refused too.
    with pytest.raises(RewindError):
        state.rewind(0, 25)


def test_a_young_session_can_rewind_to_its_start() -> None:
    """Nothing is lost while a ring has not wrapped, however far back."""
    lm = make_lm()
    steps = make_steps([[Kind.PREFIX] + [Kind.SPEAK] * 10], 8)
    state = lm.init_state(1)
    expected = stream(lm, steps, state, [0], [1])
    state.rewind(0, 0)
    assert torch.equal(stream(lm, steps, state, [0], [1]), expected)


def test_full_prefix_is_refused() -> None:
    """The pinned area has a size, and says so before anything is written."""
    lm = make_lm()
    state = lm.init_state(1)
    lm.step(make_steps([[Kind.PREFIX] * 3], 0), state, [0])
    with pytest.raises(EngineError, match="prefix of 4 steps, the model holds 3"):
        lm.step(make_steps([[Kind.PREFIX]], 0), state, [0])
    assert state.length(0) == 3


def test_golden_output() -> None:
    """A seeded model gives the numbers it always gave, so that a checkpoint keeps its meaning."""
    lm = make_lm()
    kinds = [Kind.PREFIX, Kind.LISTEN, Kind.LISTEN, Kind.TEXT, Kind.SPEAK, Kind.SPEAK]
    steps = make_steps([kinds], 0)
    with torch.no_grad():
        hidden = lm(steps)
        logits = lm.text_logits(hidden)
        codes = lm.depth.generate(hidden[0], steps.text[0])
    torch.testing.assert_close(
        logits[0, :, :4],
        torch.tensor(GOLDEN_LOGITS),
        atol=1e-4,
        rtol=1e-4,
    )
    assert codes.tolist() == GOLDEN_CODES


WAYS = ["fork", "restore", "restore elsewhere"]


def carry_over(lm: LM, state: LMState, way: str, source: int, target: int) -> LMState:
    """Bring what `source` remembers to `target`; return the state that holds it."""
    if way == "fork":
        state.fork(source, target)
        return state
    memory = state.snapshot(source)
    other = state if way == "restore" else lm.init_state(state.num_slots)
    other.restore(target, memory)
    return other


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("start", [1, 2, 17, 45])
def test_a_copy_goes_on_as_the_original(way: str, start: int) -> None:
    """A forked or restored slot gives bit for bit what the original gives, from there on."""
    lm = make_lm()
    steps = make_steps([random_kinds(60, 3)], 8)
    state = lm.init_state(3)
    stream(lm, steps.columns(0, start), state, [0], [1])
    stream(lm, make_steps([random_kinds(33, 5)], 5), state, [2], [3])  # forgotten in what follows
    other = carry_over(lm, state, way, 0, 2)
    assert other.length(2) == start
    expected = stream(lm, steps.columns(start, 60), state, [0], [1])
    assert torch.equal(stream(lm, steps.columns(start, 60), other, [2], [1]), expected)


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_and_the_original_part(way: str) -> None:
    """What either does afterwards changes nothing for the other, rewinds included."""
    lm = make_lm()
    steps = make_steps([random_kinds(60, 3)], 8)
    away = make_steps([random_kinds(30, 9)[3:]], 9)
    away = dataclasses.replace(away, position=away.position + 38)
    alone = lm.init_state(1)
    stream(lm, steps.columns(0, 38), alone, [0], [1])
    expected_away = stream(lm, away, alone, [0], [1])
    alone = lm.init_state(1)
    expected = stream(lm, steps, alone, [0], [1])

    state = lm.init_state(2)
    stream(lm, steps.columns(0, 40), state, [0], [1])
    other = carry_over(lm, state, way, 0, 1)
    other.rewind(1, 38)
    assert torch.equal(stream(lm, away, other, [1], [1]), expected_away)
    assert torch.equal(stream(lm, steps.columns(40, 60), state, [0], [1]), expected[:, 40:])


def test_a_snapshot_stays_what_it_was() -> None:
    """It can be restored again and again, whatever its slot has done since."""
    lm = make_lm()
    steps = make_steps([random_kinds(50, 3)], 8)
    state = lm.init_state(2)
    stream(lm, steps.columns(0, 20), state, [0], [1])
    memory = state.snapshot(0)
    expected = stream(lm, steps.columns(20, 50), state, [0], [1])
    for slot in (1, 0):
        state.restore(slot, memory)
        assert torch.equal(stream(lm, steps.columns(20, 50), state, [slot], [1]), expected)


def test_a_snapshot_costs_what_was_used() -> None:
    """A young session's memory is small, and none outgrows its windows."""
    lm = make_lm()
    state = lm.init_state(1, MemoryConfig(page_steps=2))
    sizes = []
    for kinds in ([Kind.PREFIX], [Kind.SPEAK] * 3, [Kind.SPEAK] * 40, [Kind.SPEAK] * 40):
        stream(lm, make_steps([kinds], 1), state, [0], [1])
        sizes.append(state.snapshot(0).num_bytes)
    assert sizes[0] < sizes[1] < sizes[2] == sizes[3]


def test_memory_of_another_model_is_refused() -> None:
    """What does not fit is named, and the slot keeps what it has."""
    lm, other = make_lm(), make_lm(num_layers=4)
    state = lm.init_state(1)
    stream(lm, make_steps([[Kind.SPEAK] * 3], 0), state, [0], [1])
    with pytest.raises(EngineError, match=r"expected pages of .* got"):
        state.restore(0, other.init_state(1).snapshot(0))
    assert state.length(0) == 3
