"""Wav files of any integer width, rate and number of channels become mono floats."""

import wave
from pathlib import Path

import numpy as np
import pytest

from server.client.wav import read_wav, write_wav
from server.errors import ConfigError


def _write(path: Path, samples: np.ndarray, *, width: int, channels: int, rate_hz: int) -> None:
    """Write integers of `width` bytes that stand for `samples` in [-1, 1)."""
    scaled = np.floor(samples * 2 ** (8 * width - 1)).astype(np.int64)
    unsigned_offset = 128 if width == 1 else 0
    data = b"".join(
        int(value + unsigned_offset).to_bytes(width, "little", signed=width > 1)
        for value in scaled.ravel()
    )
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate_hz)
        file.writeframes(data)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_every_width_has_the_same_scale(tmp_path: Path, width: int) -> None:
    """Full scale is 1, zero is 0, whatever the number of bits."""
    samples = np.array([0.0, 0.5, -0.5, -1.0, 0.25])
    _write(tmp_path / "a.wav", samples, width=width, channels=1, rate_hz=24_000)
    assert read_wav(tmp_path / "a.wav", 24_000) == pytest.approx(samples, abs=1e-6)


def test_channels_are_averaged(tmp_path: Path) -> None:
    """Stereo becomes the mean of both sides."""
    samples = np.array([[0.5, -0.5], [0.5, 0.25]])
    _write(tmp_path / "a.wav", samples, width=2, channels=2, rate_hz=24_000)
    assert read_wav(tmp_path / "a.wav", 24_000) == pytest.approx([0.0, 0.375])


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100, 48_000])
def test_rates_are_converted(tmp_path: Path, rate_hz: int) -> None:
    """A tone keeps its length, pitch and level."""
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate_hz) / rate_hz)
    _write(tmp_path / "a.wav", tone, width=2, channels=1, rate_hz=rate_hz)
    read = read_wav(tmp_path / "a.wav", 24_000)
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(24_000) / 24_000)
    assert len(read) == 24_000
    assert np.abs(read - expected)[500:-500].max() < 0.01


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    """A reply on disk is the reply that was heard, to 16 bits."""
    pcm = np.linspace(-1, 0.99, 1000, dtype=np.float32)
    write_wav(tmp_path / "a.wav", pcm, 24_000)
    assert read_wav(tmp_path / "a.wav", 24_000) == pytest.approx(pcm, abs=2**-15)


@pytest.mark.parametrize("content", [None, b"", b"not a wav file at all"])
def test_what_is_no_wav_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    """A missing, empty or foreign file is one clear line."""
    path = tmp_path / "a.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"cannot read .*a\.wav"):
        read_wav(path, 24_000)
