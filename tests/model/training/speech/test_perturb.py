"""New speakers: pitch, formants and tempo move apart, and the times follow."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from model.training.speech.perturb import (
    NewSpeaker,
    as_speaker,
    draw_speaker,
    median_f0,
    perturb_voice,
    stretched,
)
from model.training.speech.types import SAMPLE_RATE_HZ, Phone, Speech, Wave, Word

NOBODY = NewSpeaker(1.0, 1.0, 1.0, 0.0, 8000.0, 0.0)


def _vowel(f0_hz: float = 120.0, formant_hz: float = 1000.0, seconds: float = 1.2) -> Speech:
    """A pulse train through one resonance, .2 s of silence at either end."""
    length = round(seconds * SAMPLE_RATE_HZ)
    time = np.arange(length) / SAMPLE_RATE_HZ
    wave: Wave = np.zeros(length, np.float32)
    for harmonic in range(1, int(8000 / f0_hz)):
        hertz = harmonic * f0_hz
        level = 1 / (1 + ((hertz - formant_hz) / 200) ** 2)
        wave += (level * np.sin(2 * np.pi * hertz * time)).astype(np.float32)
    silent = (time < 0.2) | (time > seconds - 0.2)
    pcm = np.where(silent, 0, wave / np.abs(wave).max() * 8000).astype(np.int16)
    phones = (
        Phone("pau", 0.0, 0.2),
        Phone("aa", 0.2, seconds - 0.2),
        Phone("pau", seconds - 0.2, seconds),
    )
    return Speech(pcm, (Word("ah", 0.2, seconds - 0.2),), phones)


def _formant_hz(speech: Speech) -> float:
    """Centre of gravity of the amplitude spectrum around its peak."""
    power = np.abs(np.fft.rfft(speech.pcm.astype(np.float64))) ** 2
    hertz = np.fft.rfftfreq(len(speech.pcm), 1 / SAMPLE_RATE_HZ)
    return float((hertz * power).sum() / power.sum())


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("f0_hz", [90.0, 125.0, 200.0, 260.0])
def test_pitch_is_measured(f0_hz: float) -> None:
    """Pitch is measured."""
    assert median_f0(_vowel(f0_hz).pcm.astype(np.float32)) == pytest.approx(f0_hz, rel=0.06)


def test_silence_and_scraps_have_no_pitch() -> None:
    """Silence and scraps have no pitch."""
    assert median_f0(np.zeros(8000, np.float32)) == 0.0
    assert median_f0(np.ones(10, np.float32)) == 0.0


@pytest.mark.parametrize("factor", [0.75, 1.3])
def test_stretching_keeps_the_pitch(factor: float) -> None:
    """Stretching keeps the pitch."""
    pcm = _vowel(120.0).pcm.astype(np.float32)
    longer = stretched(pcm, factor)
    assert len(longer) == pytest.approx(len(pcm) * factor, abs=1)
    assert median_f0(longer) == pytest.approx(120.0, rel=0.06)
    active = np.abs(longer) > 500
    assert np.flatnonzero(active)[0] / SAMPLE_RATE_HZ == pytest.approx(0.2 * factor, abs=0.03)


def test_formants_move_without_the_pitch() -> None:
    """Formants move without the pitch."""
    speech = _vowel(120.0, 1000.0)
    moved = as_speaker(speech, replace(NOBODY, formants=1.2), _rng())
    assert _formant_hz(moved) / _formant_hz(speech) == pytest.approx(1.2, abs=0.06)
    assert median_f0(moved.pcm.astype(np.float32)) == pytest.approx(120.0, rel=0.06)


def test_pitch_moves_without_the_formants_and_the_times() -> None:
    """Pitch moves without the formants and the times."""
    speech = _vowel(120.0, 1000.0)
    moved = as_speaker(speech, replace(NOBODY, pitch=1.4), _rng())
    assert median_f0(moved.pcm.astype(np.float32)) == pytest.approx(168.0, rel=0.06)
    assert _formant_hz(moved) / _formant_hz(speech) == pytest.approx(1.0, abs=0.08)
    assert moved.duration_s == pytest.approx(speech.duration_s, abs=0.01)


def test_the_same_speaker_is_left_alone() -> None:
    """The same speaker is left alone."""
    speech = _vowel()
    same = as_speaker(speech, NOBODY, _rng())
    np.testing.assert_allclose(same.pcm, speech.pcm, atol=200)


def test_times_follow_the_sound() -> None:
    """Times follow the sound."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        speech = perturb_voice(_vowel(), rng)
        assert speech.phones[0].start_s == 0.0
        assert speech.phones[-1].end_s == speech.duration_s
        assert all(a.end_s == b.start_s for a, b in pairwise(speech.phones))
        loud = np.flatnonzero(np.abs(speech.pcm.astype(np.float32)) > 800) / SAMPLE_RATE_HZ
        assert loud[0] == pytest.approx(speech.words[0].start_s, abs=0.04)
        assert loud[-1] == pytest.approx(speech.words[0].end_s, abs=0.04)


def test_drawn_speakers_are_repeatable_and_human() -> None:
    """Drawn speakers are repeatable and human."""
    assert draw_speaker(_rng(), 120.0) == draw_speaker(_rng(), 120.0)
    rng = _rng()
    pitches = [100.0 * draw_speaker(rng, 100.0).pitch for _ in range(300)]
    assert min(pitches) >= 74.9
    assert max(pitches) <= 160.1
    assert len({round(pitch) for pitch in pitches}) > 40
