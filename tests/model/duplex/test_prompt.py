"""The phases of a prompt, frame by frame."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.duplex.prompt import (
    PUBLISHED_TONES,
    Tones,
    Voice,
    empty_prompt,
    make_prompt,
    wrapped,
)
from model.pieces import PAD

TONES = Tones(silence=np.array([1, 2]), sine=np.array([7, 8, 9]))


def test_voice_silence_text_silence() -> None:
    """The model says it all, one frame a step, and the user is a tone."""
    voice = Voice(codes=np.array([[5, 6], [6, 5]]))
    prompt = make_prompt(voice, [20, 21, 22], TONES)
    assert len(prompt) == 2 + 6 + 3 + 6
    assert prompt.voice is None
    assert prompt.num_pieces == 3
    assert (prompt.user == [7, 8, 9]).all()
    text, codes = prompt.forced[:, 0].tolist(), prompt.forced[:, 1:].tolist()
    assert text == [PAD] * 8 + [20, 21, 22] + [PAD] * 6
    assert codes == [[5, 6], [6, 5]] + [[1, 2]] * 15


def test_a_voice_that_was_recorded() -> None:
    """Comes before the frames, as it is."""
    voice = Voice(embedded=torch.zeros(4, 3), ring=torch.zeros((6, 4), dtype=torch.int64))
    prompt = make_prompt(voice, [], TONES)
    assert prompt.voice is voice
    assert len(prompt) == 12
    assert prompt.num_pieces == 0


def test_no_prompt() -> None:
    """Has no frames, of the right widths."""
    prompt = empty_prompt(2, 3)
    assert len(prompt) == 0
    assert prompt.user.shape == (0, 3)
    assert prompt.forced.shape == (0, 3)


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("be kind", "<system> be kind <system>"),
        ("  be kind\n", "<system> be kind <system>"),
        ("<system> be kind <system>", "<system> be kind <system>"),
        ("<system>", "<system> <system> <system>"),
    ],
)
def test_instructions_are_wrapped_once(text: str, becomes: str) -> None:
    """Whoever wraps them already is not wrapped again."""
    assert wrapped(text) == becomes


def test_published_tones() -> None:
    """One code for each of the eight codebooks of a side."""
    assert PUBLISHED_TONES.silence.shape == PUBLISHED_TONES.sine.shape == (8,)
