"""Workers that average their gradients take the same step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.multiprocessing.spawn import spawn

from model.training.parallel import average_gradients, join, leave, rank, world_size

if TYPE_CHECKING:
    from pathlib import Path


def work(worker: int, meeting: Path, out: Path) -> None:
    """Make gradients that only this worker has, one of them no other, average them, save them."""
    join(worker, 2, meeting)
    assert (rank(), world_size()) == (worker, 2)
    model = nn.Linear(2, 1)
    model.weight.grad = torch.full((1, 2), float(worker))
    if worker:
        model.bias.grad = torch.full((1,), 10.0)
    average_gradients(model)
    torch.save([p.grad for p in model.parameters()], out / f"{worker}.pt")
    leave()


def test_gradients_are_the_mean_everywhere(tmp_path: Path) -> None:
    """Both workers end with the mean of what each had."""
    spawn(work, (tmp_path / "meeting", tmp_path), nprocs=2)
    for worker in range(2):
        weight, bias = torch.load(tmp_path / f"{worker}.pt", weights_only=True)
        assert weight.tolist() == [[0.5, 0.5]]
        assert bias.tolist() == [5.0]


def test_alone_nothing_changes() -> None:
    """Without a group there is one worker, and gradients stay."""
    model = nn.Linear(2, 1)
    model.weight.grad = torch.ones(1, 2)
    average_gradients(model)
    assert (rank(), world_size()) == (0, 1)
    assert model.weight.grad.tolist() == [[1.0, 1.0]]
