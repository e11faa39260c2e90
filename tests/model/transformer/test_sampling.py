"""Sampling: greedy, and draws that follow the probabilities for given noise."""

from __future__ import annotations

import torch

from model.sampling import Sampling
from model.transformer.sampling import draw_noise, sample


def test_greedy_takes_the_largest() -> None:
    """Temperature 0 needs no noise."""
    logits = torch.tensor([[0.0, 2.0, 1.0], [5.0, 2.0, 1.0]])
    assert sample(logits).tolist() == [1, 0]


def test_noise_decides_among_the_top_k() -> None:
    """The largest p / noise wins, whatever is outside the top k."""
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
    sampling = Sampling(temperature=1.0, top_k=2)
    assert sample(logits, sampling, torch.tensor([[1.0, 0.61]])).tolist() == [0]
    assert sample(logits, sampling, torch.tensor([[1.0, 0.59]])).tolist() == [1]


def test_draws_follow_the_distribution() -> None:
    """Frequencies match the renormalised top-k probabilities at the given temperature."""
    logits = torch.tensor([1.0, 0.5, 0.0, -1.0]).expand(20000, 4)
    sampling = Sampling(temperature=0.7, top_k=3)
    generators = [torch.Generator().manual_seed(seed) for seed in range(20000)]
    token = sample(logits, sampling, draw_noise(generators, (3,)))
    frequency = torch.bincount(token, minlength=4) / 20000
    expected = torch.softmax(logits[0, :3] / 0.7, dim=0)
    torch.testing.assert_close(frequency[:3], expected, atol=0.015, rtol=0)
    assert frequency[3] == 0


def test_noise_rows_are_their_generators_own() -> None:
    """A generator gives the same draws whoever else is in the batch."""
    a = draw_noise([torch.Generator().manual_seed(s) for s in (1, 2)], (2, 5))
    b = draw_noise([torch.Generator().manual_seed(2)], (2, 5))
    assert torch.equal(a[1:], b)
    assert not torch.equal(a[0], a[1])
