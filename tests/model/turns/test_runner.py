"""What the runner says besides pieces and codes: how likely pieces of transcripts were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from model.messages import AppendText, Open, Respond
from model.turns.engine import TickEngine
from model.turns.runner import Request, _to_steps
from model.turns.steps import Mask, NextSteps
from tests.model.turns.test_engine import settle

MakeEngine = Callable[..., TickEngine]


def talked(make_engine: MakeEngine, clock: Any) -> TickEngine:
    """Return an engine with one conversation that has had an exchange."""
    engine = make_engine(max_sessions=1)
    settle(engine, clock, Open("s", "ann"), AppendText("s", "u", "user", "w1 w2 w3"))
    settle(engine, clock, Respond("s", 1, "a", audio=False))
    return engine


@torch.inference_mode()
def test_scores_are_log_probabilities(make_engine: MakeEngine, clock: Any) -> None:
    """Among the pieces that the mask allows: of the one put out, and of the one asked about."""
    engine, twin = talked(make_engine, clock), talked(make_engine, clock)
    history = next(iter(engine._slots)).program.history
    block, words = history.block(3, 6), (9, 11, 10)
    masks = (Mask.TRANSCRIPT,) * 3
    steps = NextSteps(len(history), block, masks, weighed=words)
    request = Request(0, steps, torch.Generator())
    (result,) = engine._runner.step([request])
    runner = twin._runner
    hidden = runner._lm.step(_to_steps([request], torch.device("cpu")), runner._pager.state, [0])
    logits = runner._lm.text_logits(hidden[0]).float() + runner._masks[Mask.TRANSCRIPT]
    likely = logits.log_softmax(-1).numpy()
    assert result.pieces is not None
    assert result.scores is not None
    for scores, row, piece, word in zip(result.scores, likely, result.pieces, words, strict=True):
        np.testing.assert_allclose(scores, [row[piece], row[word]], rtol=1e-5, atol=1e-6)
        assert row[piece] == row.max()
