"""A user's recordings are read as they come, and what is wrong with them is said."""

from __future__ import annotations

import wave
from typing import TYPE_CHECKING

import numpy as np
import pytest

from model.errors import ConfigError
from model.training.recordings import read_recordings

if TYPE_CHECKING:
    from pathlib import Path


def write_wav(path: Path, rate: int, channels: int, seconds: float = 1.0) -> None:
    """Write a quiet tone."""
    tone = 3000 * np.sin(np.arange(int(rate * seconds)) * 2 * np.pi * 200 / rate)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.repeat(tone.astype("<i2"), channels).tobytes())


def test_rates_and_channels_become_16_khz_mono(tmp_path: Path) -> None:
    """Whatever the microphone made, a second is 16,000 samples."""
    write_wav(tmp_path / "a.wav", 44100, 2)
    (tmp_path / "transcripts.tsv").write_text("a.wav\tWhat is 2 + 3?\ttwo plus three is five\n\n")
    clips, replies = read_recordings(tmp_path)
    assert [c.text for c in clips] == ["what is two plus three"]
    assert abs(len(clips[0].pcm) - 16000) <= 1
    assert replies == {clips[0].key: "two plus three is five"}


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("a.wav only one column\n", "expected 'file.wav<TAB>transcript"),
        ("missing.wav\thello\n", "cannot read .*missing.wav: No such file"),
        ("long.wav\thello\n", "expected at most"),
        ("\n", "no recordings listed"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, index: str, message: str) -> None:
    """Every mistake names its file or line."""
    write_wav(tmp_path / "long.wav", 8000, 1, seconds=15.0)
    (tmp_path / "transcripts.tsv").write_text(index)
    with pytest.raises(ConfigError, match=message):
        read_recordings(tmp_path)


def test_missing_index_says_what_it_is(tmp_path: Path) -> None:
    """A directory without an index is explained."""
    with pytest.raises(ConfigError, match=r"a line 'file\.wav<TAB>transcript'"):
        read_recordings(tmp_path)
