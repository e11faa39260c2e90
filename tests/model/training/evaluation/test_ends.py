"""When a turn is over: too early, too late, and in between."""

import numpy as np
import pytest
import torch

from model.training.evaluation.ends import (
    FRAME_S,
    TAIL_S,
    Heard,
    Hesitant,
    end_points,
    hesitate,
    listen,
    point_at,
)
from model.training.evaluation.users import Spoken
from model.transformer.lm import LM
from tests.fakes import tiny

WORDS = (("my", 0.2, 0.4), ("name", 0.4, 0.7), ("is", 0.7, 0.9), ("anna", 0.9, 1.4))


def heard(sure: list[float], end_s: float) -> Heard:
    """Return what a model said of a turn."""
    return Heard(np.array(sure, np.float32), end_s)


def test_delay_counts_from_the_last_word() -> None:
    """A frame counts once it is over; too early is below zero; never is as late as it gets."""
    turn = heard([0.1, 0.6, 0.2, 0.9, 0.95], 0.2)
    assert turn.delay_s(0.5) == pytest.approx(2 * FRAME_S - 0.2)
    assert turn.delay_s(0.8) == pytest.approx(4 * FRAME_S - 0.2)
    assert turn.delay_s(0.99) == pytest.approx(TAIL_S)


def test_pause_moves_the_end() -> None:
    """The sentence is whole, its end as much later as the pause is long; then there is silence."""
    pcm = np.pad(np.ones(round(1.2 * 16_000), np.float32), (3_200, 3_200))
    spoken, paused = Spoken(pcm, 1_400, WORDS), 0
    for seed in range(40):
        turn = hesitate(spoken, np.random.default_rng(seed))
        paused += turn.has_pause
        assert (turn.end_s > 1.4 + 0.19) == turn.has_pause
        assert len(turn.pcm) == round((turn.end_s + TAIL_S) * 16_000)
        assert turn.pcm.sum() == pytest.approx(1.2 * 16_000, abs=2)
    assert 15 < paused < 40


def test_thresholds_cut_off_no_more_than_they_may() -> None:
    """Of a hundred turns that are almost taken for over, each bound lets its share through."""
    turns = [heard([0.0, i / 100, 0.0, 0.0, 1.0], 0.32) for i in range(100)]
    points = end_points(turns)
    assert [point.cut_off.hits for point in points] == [2, 5, 10]
    assert [point.delays_ms[0] for point in points] == pytest.approx([80.0] * 3, abs=0.01)
    assert points[0].threshold > points[1].threshold > points[2].threshold
    assert point_at(turns, "low", 1.5).delays_ms[0] == pytest.approx(1000 * TAIL_S)


@pytest.mark.parametrize("has_head", [0, 1])
def test_a_turn_is_heard_alike_alone_and_among_others(has_head: int) -> None:
    """Frame by frame, with and without a head, whatever else is heard beside it."""
    codec, lm = tiny.make_codec(), tiny.make_lm()
    if has_head:
        torch.manual_seed(0)
        config = lm.config.from_dict(lm.config.to_dict() | {"has_end_head": 1})
        lm = LM(config).eval()
        lm.set_codebook_vectors(torch.randn(3, 16, 8))
    rng = np.random.default_rng(1)
    turns = [
        Hesitant(rng.uniform(-0.3, 0.3, 1280 * n).astype(np.float32), 0.2, has_pause=False)
        for n in (6, 3, 9)
    ]
    together = listen(lm, codec, turns)
    assert [len(one.sure) for one in together] == [6, 3, 9]
    for turn, one in zip(turns, together, strict=True):
        (alone,) = listen(lm, codec, [turn])
        np.testing.assert_allclose(one.sure, alone.sure, atol=1e-4)
        assert (one.sure >= 0).all()
        assert (one.sure <= 1).all()
