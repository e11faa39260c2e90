"""Duplex conversations: drawn tokens are a slot's own, and a reset leaves nothing behind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from model.cache.state import Steps
from model.config import LMConfig
from model.duplex.driver import Duplex, DuplexConfig
from model.family import Family
from model.sampling import Sampling
from model.transformer.lm import LM

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


def make(num_slots: int, reach: int = 0, **drive: Any) -> Duplex:
    """Return a small random model ready for conversations."""
    torch.manual_seed(5)
    config = replace(CONFIG, rewind_steps=reach)
    return Duplex(LM(config).eval(), replace(DRIVE, **drive), num_slots, reach)


def converse(duplex: Duplex, slots: list[int], user: Tensor) -> Tensor:
    """Return what is given out, [n, T, 3], each row drawn with a key of its own."""
    keys = range(len(slots))
    frames = [duplex.step(slots, user[:, t], None, keys).tokens for t in range(user.shape[1])]
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
    tokens = [duplex.step([0], user[:, t], forced[:, t]).tokens for t in range(6)]
    assert torch.equal(torch.stack(tokens, dim=1)[:, 1:], forced[:, :-1])


@pytest.mark.parametrize("lag", [0, 1])
def test_steps_that_are_taken_back(lag: int) -> None:
    """Never were: the conversation goes on as if it had come that far for the first time."""
    user = torch.randint(10, (2, 14, 2))
    duplex, slots = make(3, reach=5, lag=lag), [2, 0]
    for t in range(11):
        duplex.step(slots, user[:, t], keys=[0, 1])
    taken = duplex.rewind(2, 7)
    assert taken is not None
    assert torch.equal(taken, user[0, 7:11])
    assert duplex.num_calls(2) == 7
    assert duplex.num_calls(0) == 11
    again = [duplex.step([2], user[:1, t], keys=[0]).tokens for t in range(7, 14)]
    straight = make(1, reach=5, lag=lag)
    once = [straight.step([0], user[:1, t], keys=[0]).tokens for t in range(14)]
    assert torch.equal(torch.stack(again), torch.stack(once[7:]))


def test_steps_that_cannot_be_taken_back() -> None:
    """Beyond the reach, also after some were taken back; nothing changes then."""
    user = torch.randint(10, (1, 12, 2))
    duplex = make(1, reach=4)
    for t in range(12):
        duplex.step([0], user[:, t], keys=[0])
    assert duplex.rewind(0, 7) is None
    assert duplex.rewind(0, 12) is not None
    assert duplex.rewind(0, 9) is not None
    assert duplex.rewind(0, 7) is None
    assert duplex.num_calls(0) == 9
    assert duplex.rewind(0, 8) is not None


@pytest.mark.parametrize("lag", [0, 1])
def test_a_beginning_that_was_kept(lag: int) -> None:
    """Goes on in another slot, and more than once, as in the one that it was taken of."""
    user = torch.randint(10, (1, 12, 2))
    duplex = make(3, reach=4, lag=lag)
    for t in range(7):
        duplex.step([1], user[:, t], keys=[0])
    kept = duplex.snapshot(1)
    assert kept.num_bytes > 0
    frames = []
    for slot in (1, 0, 2):
        if slot != 1:
            duplex.restore(slot, kept)
            assert duplex.rewind(slot, 6) is None  # what was before is not known here
        parts = [duplex.step([slot], user[:, t], keys=[0]) for t in range(7, 12)]
        frames.append(torch.stack([part.tokens for part in parts]))
    assert torch.equal(frames[0], frames[1])
    assert torch.equal(frames[0], frames[2])
    assert duplex.rewind(0, 8) is not None


class RecordingLM(LM):
    """Keeps the inputs of its steps."""

    def __init__(self, config: LMConfig) -> None:
        super().__init__(config)
        self.inputs: list[Tensor] = []

    def embed(
        self, steps: Steps, patches: Tensor | None = None, places: Tensor | None = None
    ) -> Tensor:
        """Embed, and keep it."""
        self.inputs.append(super().embed(steps, patches, places))
        return self.inputs[-1]


def test_a_beginning_that_was_recorded() -> None:
    """Inputs in the place of tokens, and the tokens that were known after them."""
    user = torch.randint(10, (1, 12, 2))
    torch.manual_seed(5)
    lm = RecordingLM(CONFIG).eval()
    duplex = Duplex(lm, replace(DRIVE, lag=1), 2)
    for t in range(6):
        duplex.step([0], user[:, t], keys=[0])
    recorded = torch.cat(lm.inputs[1:])[:, 0]  # the user's first frame is only taken note of
    duplex.begin_with(1, recorded, duplex._ring[0].clone())
    assert duplex.num_calls(1) == duplex.num_calls(0) == 6
    for t in range(6, 12):
        frame = duplex.step([0, 1], user[:, t].expand(2, -1))
        assert torch.equal(frame.tokens[0], frame.tokens[1])
