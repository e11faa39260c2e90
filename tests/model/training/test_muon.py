"""Muon alone and shared takes the step that torch's takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.multiprocessing.spawn import spawn

from model.training.muon import Muon, shares
from model.training.parallel import join, leave

if TYPE_CHECKING:
    from pathlib import Path

SHAPES = ((12, 8), (8, 8), (8, 20), (16, 8), (8, 12))


def matrices() -> list[nn.Parameter]:
    """Make the same weights everywhere."""
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape)) for shape in SHAPES]


def trained(kind: type[torch.optim.Muon]) -> list[torch.Tensor]:
    """Take two steps with the same gradients."""
    weights = matrices()
    optimizer = kind(
        weights, lr=0.02, momentum=0.9, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(2):
        for weight in weights:
            weight.grad = torch.randn(weight.shape)
        optimizer.step()
    return [weight.detach() for weight in weights]


def work(worker: int, meeting: Path, out: Path) -> None:
    """Train together, and save what this worker has."""
    join(worker, 2, meeting)
    torch.save(trained(Muon), out / f"{worker}.pt")
    leave()


def test_alone_it_is_torchs() -> None:
    """The same numbers."""
    for mine, theirs in zip(trained(Muon), trained(torch.optim.Muon), strict=True):
        assert torch.equal(mine, theirs)


def test_shared_it_is_the_same_for_every_worker(tmp_path: Path) -> None:
    """Each makes a part of the matrices orthogonal, and all have all of them."""
    spawn(work, (tmp_path / "meeting", tmp_path), nprocs=2)
    alone = trained(Muon)
    for worker in range(2):
        for got, expected in zip(
            torch.load(tmp_path / f"{worker}.pt", weights_only=True), alone, strict=True
        ):
            assert torch.equal(got, expected)


def test_shares_are_about_equal() -> None:
    """The largest first, each to who has least."""
    assert shares([5, 4, 3, 3], 2) == [[0, 3], [1, 2]]
    assert shares([1, 2], 1) == [[1, 0]]
    assert shares([7], 3) == [[0], [], []]
