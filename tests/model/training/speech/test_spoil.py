"""Speech that nobody could understand any more."""

import numpy as np
import pytest

from model.training.skills.unheard import WAYS
from model.training.speech.spoil import spoil

SPEECH = (0.5 * np.sin(np.arange(32_000) * 0.2)).astype(np.float32)
OTHERS = [np.random.default_rng(i).uniform(-0.5, 0.5, 9_000).astype(np.float32) for i in range(3)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("length", [0, 100, 32_000])
def test_length_and_scale_stay(way: str, length: int) -> None:
    """Whatever is done to it, it is as long as before, within full scale and finite."""
    for seed in range(5):
        spoilt = spoil(SPEECH[:length], way, np.random.default_rng(seed), OTHERS)
        assert spoilt.shape == (length,)
        assert spoilt.dtype == np.float32
        assert np.isfinite(spoilt).all()
        assert np.abs(spoilt).max(initial=0) <= 1.0 + 1e-6


@pytest.mark.parametrize("way", ["noise", "babble", "drowned"])
def test_speech_is_gone(way: str) -> None:
    """What is left is mostly something else."""
    for seed in range(8):
        spoilt = spoil(SPEECH, way, np.random.default_rng(seed), OTHERS)
        assert abs(np.corrcoef(spoilt, SPEECH)[0, 1]) < 0.6


def test_half_a_word_is_short() -> None:
    """A fifth of a second at most, silence elsewhere."""
    for seed in range(8):
        spoilt = spoil(SPEECH, "half", np.random.default_rng(seed))
        assert 0 < np.count_nonzero(spoilt) <= 0.22 * 16_000 + 1


def test_same_seed_same_noise() -> None:
    """Everything random comes from the generator."""
    one, two = (spoil(SPEECH, "noise", np.random.default_rng(4)) for _ in range(2))
    assert np.array_equal(one, two)


def test_unknown_way_is_refused() -> None:
    """By its name."""
    with pytest.raises(ValueError, match="no such way to spoil speech: 'jazz'"):
        spoil(SPEECH, "jazz", np.random.default_rng(0))
