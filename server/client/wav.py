"""Read and write the wav files of a conversation."""

import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt

from server.audio.pcm import encode_pcm
from server.audio.resample import StreamResampler
from server.errors import ConfigError


def read_wav(path: Path, rate_hz: int) -> npt.NDArray[np.float32]:
    """Return a wav file as float32 [samples] in [-1, 1], mixed to mono, at `rate_hz`.

    Raises:
        ConfigError: there is no such file, or it is not integer PCM.
    """
    try:
        with wave.open(str(path), "rb") as file:
            num_channels, width_bytes = file.getnchannels(), file.getsampwidth()
            file_rate_hz = file.getframerate()
            data = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise ConfigError(f"cannot read {path}: {error} (wanted: a PCM wav file)") from error
    whole = len(data) - len(data) % (num_channels * width_bytes)
    samples = _to_float(data[:whole], width_bytes)
    mono = samples.reshape(-1, num_channels).mean(axis=1, dtype=np.float32)
    resampler = StreamResampler(file_rate_hz, rate_hz)
    return np.concatenate((resampler.feed(mono), resampler.finish()))


def write_wav(path: Path, pcm: npt.NDArray[np.float32], rate_hz: int) -> None:
    """Write float32 [samples] in [-1, 1] as a 16-bit mono wav file."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(encode_pcm(pcm))


def _to_float(data: bytes, width_bytes: int) -> npt.NDArray[np.float32]:
    """Turn the integers of a wav file, little-endian, into float32 in [-1, 1)."""
    if width_bytes == 1:
        # The one width that a wav file stores unsigned.
        unsigned = np.frombuffer(data, dtype=np.uint8).astype(np.float32)
        return (unsigned - np.float32(128)) / np.float32(128)
    # As the top bytes of 32 bits, every width has the same scale.
    padded = np.zeros((len(data) // width_bytes, 4), dtype=np.uint8)
    padded[:, 4 - width_bytes :] = np.frombuffer(data, dtype=np.uint8).reshape(-1, width_bytes)
    return padded.view("<i4")[:, 0].astype(np.float32) / np.float32(2**31)
