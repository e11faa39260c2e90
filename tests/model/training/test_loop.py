"""The training loop keeps its promises: schedule, seeds, and a stop when the loss is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from model.training.loop import (
    Trainer,
    TrainingError,
    averaged,
    learning_rate_scale,
    step_generator,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_rate_warms_up_and_decays() -> None:
    """Up over 50 steps, then down to almost nothing at the last one."""
    scales = [learning_rate_scale(step, 500) for step in range(500)]
    assert scales[:50] == sorted(scales[:50])
    assert scales[50:] == sorted(scales[50:], reverse=True)
    assert max(scales) == pytest.approx(1.0)
    assert scales[-1] < 0.03


def test_a_step_draws_the_same_numbers_whenever_it_runs() -> None:
    """Randomness depends on seed and step, not on what ran before."""
    first, again, other, seeded = (
        torch.rand(4, generator=step_generator(*key)) for key in ((1, 5), (1, 5), (1, 6), (2, 5))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, seeded)


def test_a_loss_that_is_no_number_stops_the_training(tmp_path: Path) -> None:
    """Weights are never updated from it, and the message says where it happened."""
    model = nn.Linear(1, 1)
    before = model.weight.clone()
    trainer = Trainer("tiny", tmp_path, model, [torch.optim.SGD(model.parameters(), lr=1.0)], 3)

    def loss_of(_: int) -> tuple[torch.Tensor, dict[str, float]]:
        return model(torch.full((1, 1), float("nan"))).sum(), {}

    with pytest.raises(TrainingError, match="tiny: the loss is nan at step 0"):
        trainer.run(loss_of)
    assert torch.equal(model.weight, before)


def test_the_mean_of_the_weights_is_kept_and_resumed(tmp_path: Path) -> None:
    """The checkpoint's mean is that of the steps so far, also of those before an interruption."""
    seen: list[float] = []

    def train(num_steps: int) -> None:
        model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(model.weight)
        trainer = Trainer(
            "tiny", tmp_path, model, [torch.optim.SGD(model.parameters(), lr=1.0)], num_steps, 0.999
        )

        def loss_of(_: int) -> tuple[torch.Tensor, dict[str, float]]:
            seen.append(model.weight.item())
            return -model(torch.ones(1, 1)).sum(), {}

        trainer.run(loss_of)
        seen.append(model.weight.item())

    train(3)
    train(6)
    after_each_step = [*seen[1:4], *seen[5:]]
    mean = averaged(tmp_path / "tiny.pt")["weight"].item()
    assert mean == pytest.approx(sum(after_each_step) / 6)
