"""Sound files of any kind, rate and number of channels become mono floats."""

import io
import tempfile
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import ConfigError
from model.files import sound
from model.files.sound import read_sound, write_wav


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
    assert read_sound(tmp_path / "a.wav", 24_000) == pytest.approx(samples, abs=1e-6)


def test_channels_are_averaged(tmp_path: Path) -> None:
    """Stereo becomes the mean of both sides."""
    samples = np.array([[0.5, -0.5], [0.5, 0.25]])
    _write(tmp_path / "a.wav", samples, width=2, channels=2, rate_hz=24_000)
    assert read_sound(tmp_path / "a.wav", 24_000) == pytest.approx([0.0, 0.375])


@pytest.mark.parametrize(
    "rate_hz", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000]
)
def test_rates_are_converted(tmp_path: Path, rate_hz: int) -> None:
    """A tone keeps its length, pitch and level."""
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate_hz) / rate_hz)
    _write(tmp_path / "a.wav", tone, width=2, channels=1, rate_hz=rate_hz)
    read = read_sound(tmp_path / "a.wav", 24_000)
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(24_000) / 24_000)
    assert len(read) == 24_000
    assert np.abs(read - expected)[500:-500].max() < 0.01


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    """A reply on disk is the reply that was heard, to 16 bits."""
    pcm = np.linspace(-1, 0.99, 1000, dtype=np.float32)
    write_wav(tmp_path / "a.wav", pcm, 24_000)
    assert read_sound(tmp_path / "a.wav", 24_000) == pytest.approx(pcm, abs=2**-15)


@pytest.mark.parametrize("content", [None, b"", b"not a wav file at all"])
def test_what_is_no_wav_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    """A missing, empty or foreign file is one clear line."""
    path = tmp_path / "a.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"cannot read .*a\.wav"):
        read_sound(path, 24_000)


KINDS = [
    ("WAV", "PCM_U8"),
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "PCM_32"),
    ("WAV", "FLOAT"),
    ("WAV", "DOUBLE"),
    ("WAV", "ALAW"),
    ("WAV", "ULAW"),
    ("WAV", "IMA_ADPCM"),
    ("WAVEX", "PCM_16"),
    ("WAVEX", "FLOAT"),
    ("RF64", "PCM_16"),
    ("FLAC", "PCM_24"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
    ("AIFF", "PCM_16"),
    ("AU", "ULAW"),
]


@pytest.mark.parametrize(("kind", "coding"), KINDS, ids=str)
@pytest.mark.parametrize("channels", [1, 2])
def test_what_people_have_is_read(tmp_path: Path, kind: str, coding: str, channels: int) -> None:
    """A tone keeps its length and level, however it was stored."""
    rate_hz = 48_000
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate_hz) / rate_hz)
    path = tmp_path / "a.sound"
    sides = np.repeat(tone[:, None], channels, axis=1)
    soundfile.write(path, sides, rate_hz, format=kind, subtype=coding)
    read = read_sound(path, 24_000)
    assert len(read) == pytest.approx(24_000, abs=3_000)  # mp3 pads
    assert read.dtype == np.float32
    middle = read[6_000:18_000]
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.08)


def _riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(
        name + len(data).to_bytes(4, "little") + data + b"\0" * (len(data) % 2)
        for name, data in chunks
    )
    return b"RIFF" + (4 + len(body)).to_bytes(4, "little") + b"WAVE" + body


PCM16 = (1).to_bytes(2, "little") + (1).to_bytes(2, "little")
PCM16 += (24_000).to_bytes(4, "little") + (48_000).to_bytes(4, "little")
PCM16 += (2).to_bytes(2, "little") + (16).to_bytes(2, "little")
DATA = np.array([0, 16_384, -16_384], "<i2").tobytes()


def test_chunks_of_any_kind_are_passed_over(tmp_path: Path) -> None:
    """Of odd length, before and after the sound, as editors and recorders write them."""
    path = tmp_path / "a.wav"
    path.write_bytes(
        _riff(
            (b"LIST", b"INFO" + b"odd"),
            (b"fmt ", PCM16),
            (b"junk", b"x" * 7),
            (b"data", DATA),
            (b"bext", b"y"),
        )
    )
    assert read_sound(path, 24_000) == pytest.approx([0.0, 0.5, -0.5])


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_stream_that_did_not_know_its_length(tmp_path: Path, size: int) -> None:
    """What a pipe writes: the sizes in the header are nothing or everything."""
    whole = _riff((b"fmt ", PCM16), (b"data", DATA))
    at = whole.index(b"data") + 4
    path = tmp_path / "a.wav"
    path.write_bytes(whole[:at] + size.to_bytes(4, "little") + whole[at + 4 :])
    read = read_sound(path, 24_000)
    assert len(read) in (0, 3)
    assert size == 0 or len(read) == 3


def test_more_than_an_hour_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded, whatever a header promises."""
    monkeypatch.setattr(sound, "MAX_SOUND_S", 1)
    soundfile.write(tmp_path / "a.flac", np.zeros(24_001), 24_000)
    with pytest.raises(ConfigError, match=r"a\.flac: longer than 1 s"):
        read_sound(tmp_path / "a.flac", 24_000)


def test_samples_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    """A float file may hold NaN; a model must not."""
    soundfile.write(tmp_path / "a.wav", np.array([0.0, np.nan]), 24_000, subtype="FLOAT")
    with pytest.raises(ConfigError, match="NaN or infinite"):
        read_sound(tmp_path / "a.wav", 24_000)


def test_infinities_on_two_sides_are_refused(tmp_path: Path) -> None:
    """Their mean is no number, and computing it warns of nothing."""
    sides = np.array([[np.inf, -np.inf], [0.0, 0.0]])
    soundfile.write(tmp_path / "a.wav", sides, 24_000, subtype="FLOAT")
    with pytest.raises(ConfigError, match="NaN or infinite"):
        read_sound(tmp_path / "a.wav", 24_000)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    """By name, like everything that is no file."""
    with pytest.raises(ConfigError, match=r"cannot read .*: Is a directory"):
        read_sound(tmp_path, 24_000)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_a_damaged_file_is_read_or_refused(data: st.DataObject) -> None:
    """Any bytes changed, cut or put in: there are samples in [-1, 1], or one clear error."""
    kind, coding = data.draw(st.sampled_from(KINDS))
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(400) + 0.25, 16_000, format=kind, subtype=coding)
    damaged = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, min(len(damaged) - 1, 80)))
        damaged[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
        if not damaged:
            break
    with tempfile.NamedTemporaryFile() as file:
        file.write(damaged)
        file.flush()
        try:
            read = read_sound(Path(file.name), 24_000)
        except ConfigError as error:
            assert file.name in str(error)  # noqa: PT017 - either is right
        else:
            assert np.abs(read).max(initial=0.0) <= 1.0
