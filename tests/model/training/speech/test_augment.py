"""Augmentation keeps length and place, is repeatable, and does what its name says."""

from __future__ import annotations

import numpy as np
import pytest

from model.training.speech.augment import (
    _packets_lost,
    _room,
    add_noise,
    augment,
    frames_of,
    from_frames,
    speech_power,
    telephone,
)
from model.training.speech.types import SAMPLE_RATE_HZ, Wave


def _syllables(seconds: float = 1.0) -> Wave:
    """Bursts of a rich tone, like syllables: float32 [samples]."""
    time = np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    tone = sum(np.sin(2 * np.pi * 150 * k * time) / k for k in range(1, 40))
    loudness = np.clip(np.sin(2 * np.pi * 3 * time), 0, None)
    return (0.1 * tone * loudness).astype(np.float32)


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("length", [1, 100, 15999])
def test_any_level_keeps_length_and_range(level: float, length: int) -> None:
    """Any level keeps length and range."""
    pcm = _syllables()[:length]
    for seed in range(12):
        heard = augment(pcm, np.random.default_rng(seed), level, others=[_syllables(0.3)])
        assert heard.shape == pcm.shape
        assert heard.dtype == np.float32
        assert np.isfinite(heard).all()
        assert np.abs(heard).max() <= 1.0


def test_level_zero_changes_nothing() -> None:
    """Level zero changes nothing."""
    pcm = _syllables()
    np.testing.assert_array_equal(augment(pcm, np.random.default_rng(0), 0.0), pcm)


def test_equal_seeds_are_equal_and_others_differ() -> None:
    """Equal seeds are equal and others differ."""
    pcm = _syllables()
    once = [augment(pcm, np.random.default_rng(seed), 1.0) for seed in (5, 5, 6)]
    np.testing.assert_array_equal(once[0], once[1])
    assert not np.array_equal(once[0], once[2])


def test_silence_stays_finite() -> None:
    """Silence stays finite."""
    for seed in range(20):
        heard = augment(np.zeros(4000, np.float32), np.random.default_rng(seed), 1.0)
        assert np.isfinite(heard).all()


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 30.0])
def test_noise_is_exactly_as_loud_as_asked(snr_db: float) -> None:
    """Noise is exactly as loud as asked."""
    pcm = _syllables()
    noise = add_noise(pcm, snr_db, np.random.default_rng(0)) - pcm
    ratio = speech_power(pcm) / float(np.mean(noise**2))
    assert 10 * np.log10(ratio) == pytest.approx(snr_db, abs=0.05)


def test_pauses_do_not_count_as_speech() -> None:
    """Pauses do not count as speech."""
    pcm = _syllables()
    longer = np.concatenate([pcm, np.zeros(len(pcm) * 3, np.float32)])
    assert speech_power(longer) == pytest.approx(speech_power(pcm), rel=0.01)


def test_the_direct_sound_stays_in_place() -> None:
    """The direct sound stays in place."""
    for seed in range(20):
        room = _room(np.random.default_rng(seed), 1.0)
        assert room[0] == 1.0
        assert np.abs(room[1:]).max() < 1.0
        assert float(np.sum(room[1:] ** 2)) <= 1.01  # never more reverberation than speech


def test_a_telephone_has_no_bass_and_no_treble() -> None:
    """A telephone has no bass and no treble."""
    rng = np.random.default_rng(0)
    noise = (0.1 * rng.standard_normal(SAMPLE_RATE_HZ)).astype(np.float32)
    power = np.abs(np.fft.rfft(telephone(noise))) ** 2
    middle = power[1000:3000].mean()
    assert power[:150].mean() < middle / 30
    assert power[4200:].mean() < middle / 300


def test_frames_give_back_what_they_took() -> None:
    """Frames give back what they took."""
    pcm = _syllables()
    for hop in (128, 256):
        again = from_frames(frames_of(pcm, 512, hop), 512, hop, len(pcm))
        np.testing.assert_allclose(again, pcm, atol=1e-5)


def test_lost_packets_are_whole_and_few_and_the_rest_is_untouched() -> None:
    """Some packets of 20 ms are silent or the one before, quieter; all others are as they were."""
    pcm = np.random.default_rng(1).uniform(-0.5, 0.5, 40 * SAMPLE_RATE_HZ).astype(np.float32)
    kinds = set()
    for seed in range(8):
        heard = _packets_lost(pcm, np.random.default_rng(seed), 1.0).reshape(-1, 320)
        is_lost = (heard != pcm.reshape(-1, 320)).any(axis=1)
        assert 0 < is_lost.mean() < 0.3
        assert not is_lost[0]
        first = int(np.flatnonzero(is_lost)[0])
        is_silent = not heard[first].any()
        kinds.add(is_silent)
        if not is_silent:
            np.testing.assert_allclose(heard[first], heard[first - 1] / 2, atol=1e-6)
    assert kinds == {True, False}
