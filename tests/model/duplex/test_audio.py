"""A model with its codec: what is heard is what its codes say, and rows keep to themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from model.codec.mimi import Mimi
from model.duplex.audio import AudioDuplex
from model.duplex.work import Work
from tests.model.transformer.test_graphs import DRAWN, MIMI, make, with_codec


def sound(seed: int) -> np.ndarray:
    """Return a frame of noise."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.1, MIMI.frame_samples).astype(np.float32)


def codec() -> Mimi:
    """Return the codec of `with_codec`."""
    torch.manual_seed(6)
    return Mimi(MIMI).eval().double()


def heard(seed: int, *, is_wanted: bool = True) -> Work:
    """Return work in which a frame of noise is heard."""
    return Work(sound(seed), None, None, is_wanted=is_wanted)


def converse(driven: AudioDuplex, slot: int, seeds: range, *others: int) -> list[torch.Tensor]:
    """Let a slot hear a frame for each seed, others something else; return what it says."""
    said = []
    for seed in seeds:
        work = [heard(seed), *(heard(100 + seed + other) for other in others)]
        is_young = driven.duplex.num_calls(slot) < 4  # no frame is whole yet
        work = [replace(each, is_wanted=not is_young) for each in work]
        frame = driven.step([slot, *others], work, [7, *others])
        if not is_young:
            said.append(torch.cat([frame.frame.tokens[0].double(), frame.pcm[0].double()]))
    return said


def test_sound_is_heard_as_its_codes() -> None:
    """Whether the codec of a step or one before it encodes a frame, the step is the same."""
    by_sound, by_codes, mimi = with_codec(make(DRAWN)), with_codec(make(DRAWN)), codec()
    encoder = mimi.init_encoder_state(1)
    for seed in range(8):
        pcm = torch.from_numpy(sound(seed))[None].double()
        codes = mimi.encode_step(pcm, encoder)[0, 0].numpy()
        one = by_sound.step([1], [heard(seed, is_wanted=False)])
        two = by_codes.step([1], [Work(None, codes, None)])
        assert torch.equal(one.frame.tokens, two.frame.tokens)


def test_what_is_said_is_what_its_codes_sound_like() -> None:
    """Frames that are wanted are decoded in order, and only those."""
    driven, mimi = with_codec(make(DRAWN)), codec()
    decoder = mimi.init_decoder_state(1)
    for seed in range(9):
        is_wanted = seed in {4, 5, 7}
        made = driven.step([0], [heard(seed, is_wanted=is_wanted)])
        if is_wanted:
            pcm = mimi.decode_step(made.frame.tokens[:, None, 1:], decoder)
            torch.testing.assert_close(made.pcm, pcm.float().clamp(-1, 1))


def test_alone_and_in_company() -> None:
    """Tokens and sound, in whatever slots, and after a reset as in a new one."""
    alone = converse(with_codec(make(DRAWN)), 0, range(9))
    used = with_codec(make(DRAWN))
    converse(used, 2, range(50, 57), 0)
    used.reset(2)
    together = converse(used, 2, range(9), 0, 1)
    for one, two in zip(alone, together, strict=True):
        torch.testing.assert_close(one, two)
