"""A user's recordings are read as they come, and what is wrong with them is said."""

from __future__ import annotations

import wave
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

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
        ("short.wav\thello\nshort.wav\thi\n", "tsv:2: short.wav is listed twice"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, index: str, message: str) -> None:
    """Every mistake names its file or line."""
    write_wav(tmp_path / "long.wav", 8000, 1, seconds=15.0)
    write_wav(tmp_path / "short.wav", 8000, 1)
    (tmp_path / "transcripts.tsv").write_text(index)
    with pytest.raises(ConfigError, match=message):
        read_recordings(tmp_path)


def test_missing_index_says_what_it_is(tmp_path: Path) -> None:
    """A directory without an index is explained."""
    with pytest.raises(ConfigError, match=r"a line 'file\.wav<TAB>transcript'"):
        read_recordings(tmp_path)


@pytest.mark.parametrize("subtype", ["ULAW", "PCM_U8", "PCM_24", "FLOAT"])
def test_any_sample_format_is_read(tmp_path: Path, subtype: str) -> None:
    """A telephone's mu-law sounds as loud as a studio's 24 bits."""
    tone = 0.25 * np.sin(np.arange(8000) * 2 * np.pi * 200 / 8000)
    soundfile.write(tmp_path / "a.wav", tone, 8000, subtype=subtype)
    (tmp_path / "transcripts.tsv").write_text("a.wav\thello\n")
    clips, _ = read_recordings(tmp_path)
    assert len(clips[0].pcm) == 16000
    assert np.abs(clips[0].pcm[1000:-1000]).max() == pytest.approx(8192, rel=0.05)


def test_any_length_for_who_asks_for_it(tmp_path: Path) -> None:
    """Training takes what fits its window; scoring takes all but silence of no length."""
    write_wav(tmp_path / "long.wav", 8000, 1, seconds=15.0)
    index = tmp_path / "transcripts.tsv"
    index.write_text("long.wav\thello\n")
    clips, _ = read_recordings(tmp_path, longest_s=None)
    assert len(clips[0].pcm) == 15 * 16000
    write_wav(tmp_path / "none.wav", 8000, 1, seconds=0.0)
    index.write_text("none.wav\thello\n")
    with pytest.raises(ConfigError, match=r"none\.wav: holds no audio"):
        read_recordings(tmp_path, longest_s=None)
