"""Corruption is seeded, aligned and bounded."""

from __future__ import annotations

import torch

from model.training.corrupt import corrupt


def waves() -> torch.Tensor:
    """Clicks at known places in a little noise."""
    wave = 0.001 * torch.randn(8, 16000, generator=torch.Generator().manual_seed(1))
    wave[:, 4000] = 0.9
    return wave


def test_same_seed_same_rooms() -> None:
    """All randomness comes from the generator."""
    a, b = (corrupt(waves(), torch.Generator().manual_seed(5), share=1.0) for _ in range(2))
    assert torch.equal(a, b)
    assert not torch.equal(a, waves())


def test_share_zero_changes_nothing() -> None:
    """Rows that are not picked come back bit for bit."""
    assert torch.equal(corrupt(waves(), torch.Generator().manual_seed(5), share=0.0), waves())


def test_direct_sound_stays_in_place_and_in_range() -> None:
    """Labels stay true: the loudest sample does not move; nothing exceeds full scale."""
    out = corrupt(waves(), torch.Generator().manual_seed(9), share=1.0)
    assert out.abs().max() <= 1.0
    assert ((out.abs().argmax(1) - 4000).abs() <= 2).float().mean() >= 0.75
