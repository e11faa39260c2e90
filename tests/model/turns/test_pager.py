"""Which session's memory is where: beginnings are shared, the longest idle gives way."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.cache.state import Kind, Steps
from model.engine.config import EngineConfig
from model.errors import ConfigError, OutOfPagesError
from model.metrics import EngineMetrics
from model.transformer.lm import LM
from model.turns.history import StepBlock
from model.turns.pager import Pager
from tests.model.conftest import LM_CONFIG

K = LM_CONFIG.num_codebooks
PROMPT, OTHER = (3, 5), (3, 6)


def make_pager(lm: LM, **settings: object) -> tuple[Pager, EngineMetrics]:
    """Return a pager of three sessions, with pages of 2 steps of which one takes up to 22."""
    metrics = EngineMetrics()
    config = {"max_sessions": 3, "kv_page_steps": 2, "cached_prompts": 2, **settings}
    return Pager(lm, EngineConfig(**config), metrics), metrics  # type: ignore[arg-type]  # of a test's choice


def block(pieces: tuple[int, ...]) -> StepBlock:
    """Return pinned steps."""
    absent = np.full((len(pieces), K), -1)
    kind = np.full(len(pieces), int(Kind.PREFIX))
    return StepBlock(np.array(pieces), kind, absent, absent, np.full(len(pieces), None))


def feed(pager: Pager, lm: LM, slots: list[int], pieces: tuple[int, ...], kind: Kind) -> list[int]:
    """Take steps of several slots; return the piece that each puts out."""
    shape = (len(slots), len(pieces))
    start = [pager.state.length(slot) for slot in slots]
    steps = Steps(
        torch.tensor([pieces] * len(slots)),
        torch.full((*shape, K), -1),
        torch.full((*shape, K), -1),
        torch.full(shape, int(kind)),
        torch.tensor(start)[:, None] + torch.arange(len(pieces)),
    )
    hidden = pager.run(slots, lambda: lm.step(steps, pager.state, slots))
    pieces_out: list[int] = lm.text_logits(hidden)[:, -1].argmax(-1).tolist()
    return pieces_out


def begin(pager: Pager, lm: LM, slot: int, pieces: tuple[int, ...]) -> int:
    """Begin a session; return how many of its first steps were known."""
    known = pager.recall(slot, block(pieces))
    assert pager.seek(slot, known)
    if not known:
        feed(pager, lm, [slot], pieces, Kind.PREFIX)
    return known


def go_on(pager: Pager, lm: LM, slot: int) -> list[int]:
    """Go on with a conversation in text; return what it puts out."""
    return [feed(pager, lm, [slot], (piece,), Kind.TEXT)[0] for piece in (9, 1, 7, 4, 8)]


def feed_all(pager: Pager, lm: LM) -> None:
    """Take more steps of all sessions together than there are pages for."""
    for _ in range(30):
        feed(pager, lm, [0, 1, 2], (9,), Kind.TEXT)


def test_a_hit_equals_a_miss(lm: LM) -> None:
    """Token for token, without a step, and in the same page; another beginning is another."""
    pager, metrics = make_pager(lm)
    known = [begin(pager, lm, slot, PROMPT) for slot in (0, 1)]
    assert known == [0, 2]
    assert go_on(pager, lm, 0) == go_on(pager, lm, 1)
    shared = [set(a) & set(b) for a, b in zip(*map(pager.state.pages, (0, 1)), strict=True)]
    assert [len(pages) for pages in shared] == [1, 1]
    assert begin(pager, lm, 2, OTHER) == 0
    assert (metrics.prompt_hits, metrics.prompt_misses) == (1, 2)


def test_a_beginning_outlives_its_session(lm: LM) -> None:
    """Also if the first call went beyond it, and in the middle of everything again."""
    pager, _ = make_pager(lm)
    expected = begin(pager, lm, 0, PROMPT), go_on(pager, lm, 0)
    assert pager.recall(1, block(OTHER)) == 0
    pager.seek(1, 0)
    feed(pager, lm, [1], (3,), Kind.PREFIX)
    pager.wipe(1)  # it left before it had begun
    pager.wipe(0)
    assert begin(pager, lm, 1, OTHER) == 0
    assert begin(pager, lm, 0, PROMPT) == 2
    assert go_on(pager, lm, 0) == expected[1]
    assert begin(pager, lm, 0, PROMPT) == 2  # begun anew, as if it had just been opened
    assert go_on(pager, lm, 0) == expected[1]


def test_the_longest_idle_gives_way_and_comes_back(lm: LM) -> None:
    """When it is due, to go on as if nothing had been."""
    pager, metrics = make_pager(lm, kv_pages=22, cached_prompts=0)
    alone, _ = make_pager(lm)
    for one in (pager, alone):
        for slot in (0, 1, 2):
            begin(one, lm, slot, PROMPT)
            go_on(one, lm, slot)
    assert metrics.parks == 0
    for slot in (0, 0, 2, 2, 2):
        assert go_on(pager, lm, slot) == go_on(alone, lm, slot)
    # Slot 1 was idle for longest.
    assert metrics.parked == metrics.parks == 1
    assert pager.state.length(1) == 0
    assert metrics.pages_used <= metrics.pages_total == 2 * 22
    assert pager.seek(1, alone.state.length(1))
    assert go_on(pager, lm, 1) == go_on(alone, lm, 1)
    assert metrics.unparks == 1
    assert metrics.parks > 1


def test_a_parked_session_can_go_back(lm: LM) -> None:
    """Or be closed, or begin anew: it is brought back, or forgotten."""
    pager, metrics = make_pager(lm, kv_pages=22, cached_prompts=0)
    for slot in (0, 1):
        begin(pager, lm, slot, PROMPT)
        for _ in range(5):
            pieces = go_on(pager, lm, slot)
    assert metrics.parked == 1
    assert pager.seek(0, 22)
    assert metrics.parked == 1  # the other one now
    assert go_on(pager, lm, 0) == pieces
    pager.wipe(1)
    assert metrics.parked == 0
    assert pager.seek(1, 0)
    assert not pager.seek(1, 5)


def test_who_has_no_room_together_is_told(lm: LM) -> None:
    """The runner splits the call; beginnings that are remembered give way before that."""
    pager, metrics = make_pager(lm, kv_pages=22)
    for slot in (0, 1, 2):
        begin(pager, lm, slot, PROMPT)
    for _ in range(4):
        with_room = metrics.pages_used
        go_on(pager, lm, 0)
    pager.wipe(0)
    assert with_room < metrics.pages_total
    begin(pager, lm, 0, PROMPT)
    with pytest.raises(OutOfPagesError):
        feed_all(pager, lm)
    lengths = [pager.state.length(slot) for slot in (0, 1, 2)]
    assert lengths == [lengths[0]] * 3
    assert begin(pager, lm, 0, PROMPT) == 0  # it is not remembered any more


def test_one_session_must_fit(lm: LM) -> None:
    """Fewer pages than a single session takes are refused when the engine is made."""
    with pytest.raises(ConfigError, match="kv_pages: one session takes up to 22, got 21"):
        make_pager(lm, kv_pages=21)
