"""Duplex conversations: drawn tokens are a slot's own, and a reset leaves nothing behind."""

from __future__ import annotations

import torch
from torch import Tensor

from model.config import LMConfig
from model.dialogue.duplex import Duplex, DuplexConfig
from model.family import Family
from model.lm import LM
from model.sampling import Sampling

CONFIG = LMConfig(
    dim=16,
    num_layers=1,
    num_heads=2,
    num_kv_heads=2,
    ff_dim=16,
    text_vocab=12,
    num_codebooks=2,
    codebook_size=10,
    audio_rank=0,
    delays=(0, 1),
    text_window=0,
    audio_window=4,
    prefix_steps=0,
    rewind_steps=0,
    depth_dim=8,
    depth_layers=1,
    depth_heads=2,
    depth_ff=8,
    family=Family(num_user_codebooks=2, text_out=12, depth_sets=(0, 1)),
)
DRIVE = DuplexConfig(
    delays=(0, 0, 1, 0, 1),
    text_sampling=Sampling(temperature=1.0, top_k=6),
    audio_sampling=Sampling(temperature=1.0),
)


def make(num_slots: int) -> Duplex:
    """Return a small random model ready for conversations."""
    torch.manual_seed(5)
    return Duplex(LM(CONFIG).eval(), DRIVE, num_slots)


def converse(duplex: Duplex, slots: list[int], user: Tensor) -> Tensor:
    """Return what is given out, [n, T, 3], each row drawn with a generator of its own."""
    noise = [torch.Generator().manual_seed(row) for row in range(len(slots))]
    frames = [duplex.step(slots, user[:, t], noise=noise).tokens for t in range(user.shape[1])]
    return torch.stack(frames, dim=1)


def test_alone_and_in_company() -> None:
    """Token for token, in whatever slots."""
    user = torch.randint(10, (3, 12, 2))
    together = converse(make(5), [4, 0, 1], user)
    assert torch.equal(together[:1], converse(make(1), [0], user[:1]))
    assert (together[0] != together[1]).any()
    assert (together[:, 0] == -2).all()  # the first frame is not whole yet
    assert (together[:, 1:] >= 0).all()


def test_a_reset_leaves_nothing() -> None:
    """The next conversation of a slot is as in a new one, and the neighbour notices nothing."""
    first, second = torch.randint(10, (2, 9, 2)), torch.randint(10, (1, 9, 2))
    duplex = make(2)
    converse(duplex, [0, 1], first)
    duplex.reset(0)
    assert torch.equal(converse(duplex, [0], second), converse(make(1), [0], second))


def test_what_is_forced_is_given_out() -> None:
    """Each stream where it belongs, and -1 is nothing rather than a choice."""
    duplex, user = make(1), torch.randint(10, (1, 6, 2))
    forced = torch.tensor([[[t, -1, 9 - t] for t in range(6)]])
    noise = [torch.Generator().manual_seed(0)]
    tokens = [duplex.step([0], user[:, t], forced[:, t], noise).tokens for t in range(6)]
    assert torch.equal(torch.stack(tokens, dim=1)[:, 1:], forced[:, :-1])
