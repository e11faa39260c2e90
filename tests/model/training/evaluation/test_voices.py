"""Speakers are told apart by how they sound, not by what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from model.errors import ConfigError
from model.training.evaluation.conditions import draw_cases
from model.training.evaluation.evaluate import run_voices
from model.training.evaluation.voices import compare_voices, save_samples, voice_vectors


def speak(hertz: float, tilt: float, seed: int, seconds: float = 1.0) -> np.ndarray:
    """Return something like a voice: harmonics of a wavering pitch that fall off by `tilt`."""
    rng = np.random.default_rng(seed)
    samples = round(16_000 * seconds)
    pitch = hertz * 2 ** np.repeat(rng.uniform(-0.1, 0.1, 10), samples // 10)
    phase = 2 * np.pi * np.cumsum(pitch) / 16_000
    wave = sum(np.cos(n * phase) * n**-tilt for n in range(1, 15))
    return (0.1 * wave + rng.normal(0, 1e-3, samples)).astype(np.float32)


def test_voices_are_farther_from_each_other_than_from_themselves() -> None:
    """Neither another pitch nor another timbre is lost, and sentences do not matter."""
    said = {
        "low": [speak(110, 1.0, seed) for seed in range(6)],
        "high": [speak(200, 1.0, seed) for seed in range(6)],
        "dull": [speak(110, 2.0, seed + 9) for seed in range(6)],
    }
    table = compare_voices(said)
    assert table.distances.shape == (3, 3)
    assert (table.distances == table.distances.T).all()
    assert table.nearest > 3 * table.within
    assert "a voice from itself at most" in table.table()
    assert table.to_json()["low"]["high"] == round(table.distances[0, 1], 2)


def test_pauses_say_nothing() -> None:
    """However long a voice is silent, it is the same voice."""
    wave = speak(150, 1.0, 1)
    with_pause = np.concatenate([wave, np.zeros(16_000, np.float32)])
    assert abs(len(voice_vectors(wave)) - len(voice_vectors(with_pause))) <= 4
    assert len(voice_vectors(np.zeros(8_000, np.float32))) == 0


def test_samples_are_written(tmp_path: Path) -> None:
    """One file a voice, as long as what it said."""
    save_samples(tmp_path / "new", {"ann": speak(150, 1.0, 1), "bob": speak(90, 1.0, 1, 0.5)})
    for name, samples in (("ann", 16_000), ("bob", 8_000)):
        wave, rate = soundfile.read(tmp_path / "new" / f"{name}.wav")
        assert (len(wave), rate) == (samples, 16_000)


def test_every_voice_answers_the_same_questions(make_engine: Any, tmp_path: Path) -> None:
    """Typed questions are answered aloud by all voices of the engine."""
    replies = {
        (case.dialogue[0].user,): case.dialogue[0].reply for case in draw_cases(4, 0, ("a",))
    }
    engine = make_engine(replies)
    table = run_voices(engine, num_texts=4, samples=tmp_path)
    assert table.voices == engine.info.voices
    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted(table.voices)
    assert not engine.is_running
    with pytest.raises(ConfigError, match="at least two texts, got 1"):
        run_voices(engine, num_texts=1)
