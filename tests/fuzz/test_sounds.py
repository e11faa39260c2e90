"""The fuzzer of sound files finds what it looks for."""

import random
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.fuzz import sounds


def test_verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A good file is read, a bad one refused, and anything else told."""
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(100), 16_000)
    assert sounds.verdict(path) == "read"
    path.write_bytes(b"RIFF")
    assert sounds.verdict(path) == "refused"

    def broken(path: Path, rate_hz: int) -> np.ndarray:
        raise ZeroDivisionError(path, rate_hz)

    monkeypatch.setattr(sounds, "read_sound", broken)
    assert sounds.verdict(path).startswith("ZeroDivisionError")
    monkeypatch.setattr(sounds, "read_sound", lambda *_: np.full(3, 1.5))
    assert sounds.verdict(path) == "louder than it can be"


def test_damage_is_repeatable() -> None:
    """A seed is a file: what was found can be looked at again."""
    one, other = (sounds.damaged(random.Random(5), bytes(range(200))) for _ in range(2))
    assert one == other != bytes(range(200))
    assert isinstance(sounds.damaged(random.Random(1), b""), bytes)
