"""Write one recording into a folder, whose files can be read at any time.

    recording.json      which session this is, of which model, and how complete
    audio.wav           stereo, 16 bits; it becomes audio.flac when the recording is finished
    events.jsonl        one line for each event: when, from whom, and the event
    engine.log          what the engine was told and made (`model.engine.log`), for `parley replay`

A WAV file has its length in its header, which is updated with every write. So after a crash the
sound up to the last write can be read. The other files are read line by line, or entry by entry, up
to the last complete one.
"""

import contextlib
import fcntl
import json
import shutil
import wave
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from model.engine.log import LogWriter
from model.messages import Command, Output
from server.recording.tracks import Stereo

ABOUT, SOUND, FLAC = "recording.json", "audio.wav", "audio.flac"
EVENTS, ENGINE = "events.jsonl", "engine.log"
_BLOCK = 1 << 16  # samples


class RecordingFiles:
    """Hold the open files of one recording.

    Args:
        folder: that is made.
        rate_hz: of the sound.
        about: what is known of it at its beginning; JSON.
        engine: what is known of the engine; JSON.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(
        self, folder: Path, rate_hz: int, about: Mapping[str, Any], engine: Mapping[str, Any]
    ) -> None:
        self.folder = folder
        self._about = dict(about)
        self._num_samples = 0
        folder.mkdir(parents=True)
        with contextlib.ExitStack() as opened:
            # Nobody but the owner of the process: people's voices are in it.
            folder.chmod(0o700)
            self._events = opened.enter_context((folder / EVENTS).open("w", encoding="utf-8"))
            # Held for as long as it is written: another server that shares the folder leaves it.
            fcntl.flock(self._events, fcntl.LOCK_EX)
            self._engine_file = opened.enter_context((folder / ENGINE).open("wb", buffering=0))
            self._engine = LogWriter(self._engine_file, engine)
            self._sound = opened.enter_context(wave.open(str(folder / SOUND), "wb"))
            self._sound.setnchannels(2)
            self._sound.setsampwidth(2)
            self._sound.setframerate(rate_hz)
            self._sound.writeframes(b"")
            write_about(folder, self._about)
            opened.pop_all()

    def sound(self, start: int, block: Stereo) -> None:
        """Add sound at a place; what lies before it and was not given is silence."""
        self._pad(start)
        self._sound.writeframes(block.astype("<i2", copy=False).tobytes())
        self._num_samples += len(block)

    def event(self, line: Mapping[str, Any]) -> None:
        """Add a line to the timeline."""
        self._events.write(json.dumps(line, separators=(",", ":"), ensure_ascii=False) + "\n")
        self._events.flush()

    def engine(self, message: Command | Output) -> None:
        """Add what the engine was told, or said."""
        self._engine.write(message)

    def finish(self, num_samples: int, about: Mapping[str, Any]) -> None:
        """Close the files; what is missing of the sound is silence."""
        self._pad(num_samples)
        write_about(self.folder, self._about | dict(about))
        self.close()

    def close(self) -> None:
        """Close the files as they are."""
        with contextlib.ExitStack() as closing:
            for file in (self._events, self._engine_file, self._sound):
                closing.callback(file.close)

    def _pad(self, num_samples: int) -> None:
        while (missing := num_samples - self._num_samples) > 0:
            num = min(missing, _BLOCK)
            self._sound.writeframes(bytes(4 * num))
            self._num_samples += num


def write_about(folder: Path, about: Mapping[str, Any]) -> None:
    """Write what is known of a recording, whole or not at all."""
    draft = folder / f"{ABOUT}.new"
    draft.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    draft.replace(folder / ABOUT)


def read_about(folder: Path) -> dict[str, Any]:
    """Return what is known of a recording; nothing if that cannot be read."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def is_abandoned(folder: Path) -> bool:
    """Say whether nobody writes a recording any more, although it was not finished."""
    try:
        with (folder / EVENTS).open("a", encoding="utf-8") as events:
            fcntl.flock(events, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return False
    return True


def to_flac(folder: Path) -> None:
    """Put FLAC in the place of a recording's WAV, a second at a time."""
    source, draft = folder / SOUND, folder / f"{FLAC}.new"
    if not source.exists():
        return
    with soundfile.SoundFile(source) as wav:
        flac = soundfile.SoundFile(
            draft, "w", wav.samplerate, wav.channels, "PCM_16", format="FLAC"
        )
        with flac:
            for block in _blocks(wav):
                flac.write(block)
    draft.replace(folder / FLAC)
    source.unlink()


def _blocks(wav: soundfile.SoundFile) -> Iterator[np.ndarray]:
    while len(block := wav.read(_BLOCK, dtype="int16")):
        yield block


def num_bytes(folder: Path) -> int:
    """Count the bytes of a recording."""
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())


def remove(folder: Path) -> None:
    """Delete a recording; one that is gone is no error."""
    shutil.rmtree(folder, ignore_errors=True)
