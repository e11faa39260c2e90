"""A ledger loses nothing that it said is written, whatever becomes of its process or its disk."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from server.errors import ConfigError
from server.names import ROOT
from server.session import ledger as ledger_module
from server.session.ledger import Ledger, LedgerError, read_ledger

LARGE = 1 << 20


def _whats(path: Path) -> list[str]:
    return [line["what"] for line in read_ledger(path)]


def test_lines_are_numbered_and_dated(tmp_path: Path) -> None:
    """Each server's from 0, under a name of its own."""
    path = tmp_path / "deep" / "usage.jsonl"
    for _ in range(2):
        ledger = Ledger(path, LARGE)
        ledger.write([{"what": "used", "seconds": 1.5}, {"what": "ended"}])
        ledger.close()
    lines = [*read_ledger(path)]
    assert [line["what"] for line in lines] == ["started", "used", "ended"] * 2
    assert [line["seq"] for line in lines] == [0, 1, 2] * 2
    assert len({line["boot"] for line in lines}) == 2
    assert lines[1]["seconds"] == 1.5
    assert lines[0]["time"].endswith("+00:00")


@pytest.mark.parametrize("cut", [1, 17, 80])
def test_half_a_line_is_cut_off(tmp_path: Path, cut: int) -> None:
    """Readers do not see it, the next server removes it, and says so."""
    path = tmp_path / "usage.jsonl"
    ledger = Ledger(path, LARGE)
    ledger.write([{"what": "used"}])
    ledger.close()
    whole = path.read_bytes()
    half = b'{"time": "2026-01-01T00:00:00.000+00:00", "boot": "0", "seq": 3, "what": "used", "a'
    path.write_bytes(whole + half[:cut])
    assert _whats(path) == ["started", "used"]
    Ledger(path, LARGE).close()
    assert path.read_bytes().startswith(whole + b'{"time"')
    lines = [*read_ledger(path)]
    assert [line["what"] for line in lines] == ["started", "used", "started"]
    assert lines[-1]["cut_bytes"] == len(half[:cut])


# Writes two lines, and is killed when half of the third is on the disk.
_KILLED = """
import os, signal, sys
from pathlib import Path
from server.session import ledger

class Killed:
    def __getattr__(self, name):
        return getattr(os, name)

    def write(self, fd, data):
        os.write(fd, data[: len(data) // 2])
        os.fsync(fd)
        os.kill(os.getpid(), signal.SIGKILL)

written = ledger.Ledger(Path(sys.argv[1]), 1 << 20)
written.write([{"what": "used", "seconds": 1.0}])
written.write([{"what": "used", "seconds": 2.0}])
ledger.os = Killed()
written.write([{"what": "used", "seconds": 4.0}])
"""


def test_a_process_that_is_killed_in_the_middle_of_a_write(tmp_path: Path) -> None:
    """What it was told is written is there, half a line is cut off, and the next goes on."""
    path = tmp_path / "usage.jsonl"
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, str(path)], cwd=ROOT, timeout=60, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert not path.read_bytes().endswith(b"\n")
    assert [line.get("seconds") for line in read_ledger(path)] == [None, 1.0, 2.0]
    ledger = Ledger(path, LARGE)  # the lock went with the process
    ledger.write([{"what": "used", "seconds": 8.0}])
    ledger.close()
    lines = [*read_ledger(path)]
    assert [line.get("seconds") for line in lines] == [None, 1.0, 2.0, None, 8.0]
    assert lines[3]["cut_bytes"] > 0


def test_a_file_that_is_one_half_line(tmp_path: Path) -> None:
    """However long that is."""
    path = tmp_path / "usage.jsonl"
    path.write_bytes(b"x" * 200_000)
    ledger = Ledger(path, LARGE)
    ledger.close()
    assert [line["cut_bytes"] for line in read_ledger(path)] == [200_000]


def test_full_files_are_put_aside_and_kept(tmp_path: Path) -> None:
    """Together they have every line once."""
    path = tmp_path / "usage.jsonl"
    ledger = Ledger(path, 1_024)
    for number in range(40):
        ledger.write([{"what": "used", "number": number}])
    ledger.close()
    files = sorted(tmp_path.glob("usage-*.jsonl"), key=lambda file: int(file.stem.split("-")[-1]))
    assert len(files) == 3
    lines = [line for file in [*files, path] for line in read_ledger(file)]
    assert [line["number"] for line in lines if "number" in line] == [*range(40)]
    assert [line["seq"] for line in lines] == [*range(41)]


def test_a_file_that_somebody_puts_aside(tmp_path: Path) -> None:
    """What follows is in a new one."""
    path, aside = tmp_path / "usage.jsonl", tmp_path / "aside.jsonl"
    ledger = Ledger(path, LARGE)
    path.rename(aside)
    ledger.write([{"what": "used"}])
    path.unlink()
    ledger.write([{"what": "ended"}])
    ledger.close()
    assert (_whats(aside), _whats(path)) == (["started"], ["ended"])


def test_one_server_writes_a_file(tmp_path: Path) -> None:
    """A second one does not start."""
    path = tmp_path / "usage.jsonl"
    ledger = Ledger(path, LARGE)
    with pytest.raises(ConfigError, match="another server writes"):
        Ledger(path, LARGE)
    ledger.close()
    Ledger(path, LARGE).close()


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    """Is told as a mistake of the configuration."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"usage\.ledger: .* cannot be written"):
        Ledger(tmp_path / "file" / "usage.jsonl", LARGE)


class _FullDisk:
    """Takes so many bytes more, then none; and may fail to sync."""

    def __init__(self, room: int, *, is_broken: bool = False) -> None:
        self._room, self._is_broken = room, is_broken

    def __getattr__(self, name: str) -> Any:
        """Be `os` otherwise."""
        return getattr(os, name)

    def write(self, fd: int, data: bytes) -> int:
        """Write what there is room for."""
        if not self._room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = os.write(fd, data[: self._room])
        self._room -= taken
        return taken

    def ftruncate(self, fd: int, size: int) -> None:
        """Cut, unless the disk is broken."""
        if self._is_broken:
            raise OSError(errno.EIO, "Input/output error")
        os.ftruncate(fd, size)


@pytest.mark.parametrize("is_broken", [False, True])
def test_a_full_disk_takes_all_of_a_batch_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_broken: bool
) -> None:
    """Whole lines that could not be cut off are there twice, and are read once."""
    path = tmp_path / "usage.jsonl"
    ledger = Ledger(path, LARGE)
    batch = [{"what": "used", "number": number} for number in range(3)]
    monkeypatch.setattr(ledger_module, "os", _FullDisk(150, is_broken=is_broken))
    with pytest.raises(LedgerError, match="No space left"):
        ledger.write(batch)
    monkeypatch.undo()
    ledger.write(batch)
    ledger.close()
    lines = [*read_ledger(path)]
    assert [line.get("number") for line in lines] == [None, 0, 1, 2]
    assert (path.read_text().count('"number": 0') == 2) is is_broken


@pytest.mark.parametrize("text", ["nonsense\n", "[1]\n", '{"seq": 1}\n'])
def test_what_is_no_ledger(tmp_path: Path, text: str) -> None:
    """Is refused by its line."""
    path = tmp_path / "other.jsonl"
    path.write_text(json.dumps({"boot": "a", "seq": 0, "what": "started"}) + "\n" + text)
    with pytest.raises(ConfigError, match="line 2 is none"):
        [*read_ledger(path)]
    with pytest.raises(ConfigError, match="cannot be read"):
        [*read_ledger(tmp_path / "nothing.jsonl")]
