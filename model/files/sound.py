"""Read the sound files that people have, and write wav files.

libsndfile does the reading, through `soundfile`: every kind of wav (8 to 32 bit, float, A-law,
µ-law, extensible, with chunks of any kind), flac, mp3, ogg and some more. `torchaudio.load` would
need FFmpeg's libraries on the machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from model.errors import ConfigError

Pcm = npt.NDArray[np.float32]

MAX_SOUND_S = 3_600
"""Seconds of the longest file that is read: an hour is 230 MB as float32 at 16 kHz."""
_RATES_HZ = range(4_000, 768_001)
_MAX_CHANNELS = 32
_BLOCK_FRAMES = 1 << 16
_WANTED = "a sound file: wav, flac, mp3, ogg, aiff or au"


def read_sound(path: Path, rate_hz: int) -> Pcm:
    """Return a sound file as float32 [samples] in [-1, 1], mixed to mono, at `rate_hz`.

    Raises:
        ConfigError: naming the file, what was got and what was expected.
    """
    try:
        with path.open("rb"):
            pass  # the system says best why a file cannot be read
        # Float files may hold infinities; what their mean is, is looked at below.
        with soundfile.SoundFile(path) as file, np.errstate(invalid="ignore", over="ignore"):
            _check(path, file)
            blocks = file.blocks(_BLOCK_FRAMES, dtype="float32", always_2d=True)
            # Block by block: a stereo file of an hour is mixed down without ever being there as a
            # whole in stereo.
            mono = [block.mean(axis=1, dtype=np.float32) for block in _bounded(path, file, blocks)]
            file_rate_hz = file.samplerate
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"cannot read {path}: {reason}") from error
    except soundfile.SoundFileError as error:
        got = "an empty file" if not path.stat().st_size else str(error).rpartition(": ")[2]
        raise ConfigError(f"cannot read {path}: {got} (expected {_WANTED})") from error
    pcm = np.concatenate(mono) if mono else np.zeros(0, np.float32)
    if not np.isfinite(pcm).all():
        raise ConfigError(f"cannot read {path}: it holds samples that are NaN or infinite")
    if file_rate_hz != rate_hz:
        pcm = soxr.resample(pcm, file_rate_hz, rate_hz).astype(np.float32)
    return np.clip(pcm, -1.0, 1.0)


def write_wav(path: Path, pcm: Pcm, rate_hz: int) -> None:
    """Write float32 [samples] in [-1, 1] as a 16-bit mono wav file."""
    soundfile.write(path, np.clip(pcm, -1.0, 1.0), rate_hz, subtype="PCM_16", format="WAV")


def _check(path: Path, file: soundfile.SoundFile) -> None:
    if file.samplerate not in _RATES_HZ:
        raise ConfigError(
            f"cannot read {path}: {file.samplerate} samples a second, expected "
            f"{_RATES_HZ.start} to {_RATES_HZ.stop - 1}"
        )
    if file.channels > _MAX_CHANNELS:
        raise ConfigError(
            f"cannot read {path}: {file.channels} channels, expected at most {_MAX_CHANNELS}"
        )


def _bounded(
    path: Path, file: soundfile.SoundFile, blocks: Iterable[npt.NDArray[np.float32]]
) -> Iterator[npt.NDArray[np.float32]]:
    """Pass blocks on, up to an hour of them: a header may promise anything."""
    num_frames = 0
    for block in blocks:
        num_frames += len(block)
        if num_frames > MAX_SOUND_S * file.samplerate:
            raise ConfigError(f"cannot read {path}: longer than {MAX_SOUND_S} s")
        yield block
