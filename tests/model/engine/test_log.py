"""A log is read as it was written, up to where it was cut off, and tells when it was changed."""

import json
from pathlib import Path

import numpy as np
import pytest

from model.engine.log import AudioMade, Log, LogError, LogWriter, read_log
from model.messages import (
    AppendAudio,
    AppendText,
    Cancel,
    Command,
    CommandNoted,
    InputTranscript,
    Open,
    Output,
    Respond,
    ResponseAudio,
    StepNoted,
    Tool,
)

PCM = np.linspace(-1, 1, 100, dtype=np.float32)
PICTURE = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
MESSAGES: list[Command | Output] = [
    Open("s", "ann", "be brief", is_noted=True),
    CommandNoted("s", 0, 1.5, 7),
    AppendAudio("s", PCM),
    AppendText("s", "item", "user", "look", (PICTURE,)),
    Respond("s", 1, "item_2", tools=(Tool("f", "", "{}"),)),
    StepNoted("s", 2.5, 3, (1, 2), (3,), (4,), (5, 6), 2),
    InputTranscript("s", "item", "héllo", -0.5),
    Cancel("s", 1),
]


def written(path: Path, *messages: Command | Output) -> Path:
    """Write a log."""
    with path.open("wb") as file:
        log = LogWriter(file, {"model": "starter"})
        for message in messages:
            log.write(message)
    return path


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """Commands, outputs and notes, sound and pictures included."""
    log = read_log(written(tmp_path / "log", *MESSAGES))
    assert log.header == {"format": 1, "model": "starter"}
    assert (log.changed, log.is_whole) == (None, True)
    assert len(log.entries) == len(MESSAGES)
    for message, entry in zip(MESSAGES, log.entries, strict=True):
        match message, entry:
            case AppendAudio(), AppendAudio():
                assert np.array_equal(entry.pcm, message.pcm)
            case AppendText(), AppendText():
                assert np.array_equal(entry.images[0], PICTURE)
            case _:
                assert entry == message


def test_sound_that_was_made_is_a_digest(tmp_path: Path) -> None:
    """It follows from the rest, so it need not be kept."""
    sounds = [ResponseAudio("s", 1, pcm) for pcm in (PCM, PCM.copy(), PCM * 0.5)]
    entries = read_log(written(tmp_path / "log", *sounds)).entries
    assert all(isinstance(entry, AudioMade) and entry.num_samples == 100 for entry in entries)
    assert entries[0] == entries[1] != entries[2]


@pytest.mark.parametrize("num_bytes", [1, 5, 12, 50])
def test_a_log_that_was_cut_off_is_read_up_to_there(tmp_path: Path, num_bytes: int) -> None:
    """A crash may come within an entry."""
    path = written(tmp_path / "log", *MESSAGES)
    path.write_bytes(path.read_bytes()[:-num_bytes])
    log = read_log(path)
    assert not log.is_whole
    assert log.changed is None
    assert 0 < len(log.entries) < len(MESSAGES)


def entries_of(path: Path) -> list[bytes]:
    """Return the entries of a log as they lie in the file."""
    data, entries = path.read_bytes(), []
    while data:
        size = 12 + int.from_bytes(data[:4], "little")
        entries.append(data[:size])
        data = data[size:]
    return entries


def test_an_entry_that_was_changed_is_found(tmp_path: Path) -> None:
    """By the chain of digests, and the first one is named."""
    path = written(tmp_path / "log", *MESSAGES)
    path.write_bytes(path.read_bytes().replace(b"item_2", b"item_3"))
    assert changed(read_log(path)) == 4


def test_an_entry_that_was_taken_out_is_found(tmp_path: Path) -> None:
    """What follows it does not hang together with what is before."""
    path = written(tmp_path / "log", *MESSAGES)
    entries = entries_of(path)
    del entries[3]
    path.write_bytes(b"".join(entries))
    assert changed(read_log(path)) == 2


def changed(log: Log) -> int | None:
    """Return which message was changed first."""
    return log.changed


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "expected a log"),
        (b"RIFF0000WAVEfmt ", "expected a log"),
        (b"\xff\xff\xff\xff" + b"0" * 100, "expected a log"),
    ],
)
def test_what_is_no_log_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    """With one line that says what was expected."""
    path = tmp_path / "log"
    path.write_bytes(data)
    with pytest.raises(LogError, match=reason):
        read_log(path)


def test_a_log_of_another_format_is_refused(tmp_path: Path) -> None:
    """With both formats in the message."""
    path = tmp_path / "log"
    body = json.dumps({"format": 99}).encode()
    path.write_bytes(len(body).to_bytes(4, "little") + b"0" * 8 + body)
    with pytest.raises(LogError, match="expected format 1, got 99"):
        read_log(path)
