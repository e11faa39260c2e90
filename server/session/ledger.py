"""Keep what was used in a file that a crash does not damage: one JSON object a line.

The rule: lines are written in one piece and `fsync`ed before `write` returns. So written lines
stay, even if the process is killed or the machine loses power. The line that was being written then
may be incomplete. It was never reported as written, and is cut off when the file is opened next.
"""

import contextlib
import datetime as dt
import errno
import fcntl
import glob
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from server.errors import ConfigError, ParleyError
from server.protocol.wire.checks import JsonObject

_CHUNK = 64 * 1024
_log = structlog.get_logger("ledger")


class LedgerError(ParleyError):
    """Report that lines could not be written; the file is as it was before."""


class Ledger:
    """Append lines to a file, and begin another one when it is large.

    Full files are put aside as `NAME-TIME-BOOT-NUMBER.jsonl`, and never removed: somebody bills by
    them. If another program moves the current file away, the next line begins a new one.

    Used by one thread at a time.

    Args:
        path: of the file.
        max_bytes: at which it is put aside.

    Raises:
        ConfigError: it cannot be written, or another server writes it.
    """

    # A worked example of a crash. Two lines of 200 bytes are in the file. A third is written, of
    # which 90 bytes are on the disk when the power fails:
    #
    #     {"time": …, "seq": 0, …}\n{"time": …, "seq": 1, …}\n{"time": …, "seq": 2, "wha
    #
    # At the next start the file has 490 bytes, and its last line break is at 400: it is cut there,
    # and the first new line says `"what": "started", "cut_bytes": 90`.

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._boot = secrets.token_hex(4)
        self._num_lines = self._num_files = 0
        self._fd: int | None = None
        self._size = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise _cannot(path, error) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            cut_bytes = self._open()
        except OSError as error:
            os.close(self._lock)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise ConfigError(
                    f"usage.ledger: another server writes {path}: give each a file of its own"
                ) from None
            raise _cannot(path, error) from None
        self.write([{"what": "started", "cut_bytes": cut_bytes}])

    def write(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Add lines; they are on the disk when this returns.

        Raises:
            LedgerError: they are not, and none of them is.
        """
        time = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
        heads = (
            {"time": time, "boot": self._boot, "seq": self._num_lines + number}
            for number in range(len(lines))
        )
        data = "".join(
            json.dumps({**head, **line}) + "\n" for head, line in zip(heads, lines, strict=True)
        ).encode()
        try:
            self._follow()
            self._append(data)
        except OSError as error:
            self._give_up()
            raise LedgerError(f"{self._path}: {error.strerror or error}") from None
        self._num_lines += len(lines)

    def close(self) -> None:
        """Let go of the file."""
        self._give_up()
        os.close(self._lock)

    def _append(self, data: bytes) -> None:
        assert self._fd is not None, "it was just opened"
        try:
            written = 0
            while written < len(data):
                written += os.write(self._fd, data[written:])
            os.fsync(self._fd)
        except OSError:
            # A full disk took a part of it. If that cannot be cut off now, it is when the file is
            # opened next, up to the last whole line; whole lines among it are then there twice,
            # under the same `boot` and `seq`.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise
        self._size += len(data)

    def _follow(self) -> None:
        """Have the right file open: a new one if it is full, or was put aside or removed."""
        if self._fd is not None:
            if self._size >= self._max_bytes:
                self._put_aside()
            elif self._is_other():
                self._give_up()
        if self._fd is None:
            self._open()

    def _is_other(self) -> bool:
        assert self._fd is not None, "asked of an open file"
        ours = os.fstat(self._fd)
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return True
        return (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino)

    def _put_aside(self) -> None:
        time = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
        name = f"{self._path.stem}-{time}-{self._boot}-{self._num_files}{self._path.suffix}"
        self._path.rename(self._path.with_name(name))
        self._num_files += 1
        self._give_up()

    def _open(self) -> int:
        """Open the file, and cut off half a line; returns how many bytes that were."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, 0o600)
        size = os.fstat(self._fd).st_size
        self._size = _whole(self._fd, size)
        if self._size < size:
            _log.warning("half a line is cut off", path=str(self._path), bytes=size - self._size)
            os.ftruncate(self._fd, self._size)
        os.fsync(self._fd)
        # A new name is on the disk when its folder is.
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return size - self._size

    def _give_up(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def put_aside(path: Path) -> list[Path]:
    """Return the files that servers have put aside because they were full, the oldest first."""
    return sorted(
        each
        for each in path.parent.glob(f"{glob.escape(path.stem)}-*{glob.escape(path.suffix)}")
        if re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{8}-\d+", each.stem[len(path.stem) + 1 :])
    )


def read_ledger(path: Path, day: str | None = None) -> Iterator[JsonObject]:
    """Yield the lines of a ledger file, also while it is written.

    The last is left out if it is there in half, and one that is there twice is yielded once.

    Args:
        path: of the file.
        day: of which lines are wanted, as `2026-11-30`, UTC's; None for all.

    Raises:
        ConfigError: the file cannot be read, or is none.
    """
    seen: tuple[str, int] = ("", -1)
    # Where every line begins, as it is written above. Others need not be parsed.
    begins = b"" if day is None else b'{"time": "%s' % day.encode()
    try:
        with path.open("rb") as file:
            for number, text in enumerate(file, 1):
                if not text.endswith(b"\n"):
                    return
                if not text.startswith(begins):
                    continue
                line = _parsed(path, number, text)
                here = (str(line["boot"]), int(line["seq"]))
                # Numbers of one server only grow.
                if here[0] != seen[0] or here[1] > seen[1]:
                    seen = here
                    yield line
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None


def _parsed(path: Path, number: int, text: bytes) -> JsonObject:
    try:
        line: JsonObject = json.loads(text)
        return {**line, "boot": line["boot"], "seq": line["seq"]}
    except (ValueError, TypeError, KeyError):
        raise ConfigError(f"{path}: line {number} is none of a ledger of use") from None


def _whole(fd: int, size: int) -> int:
    """Return how many bytes whole lines have."""
    end = size
    while end > 0:
        start = max(0, end - _CHUNK)
        found = os.pread(fd, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _cannot(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"usage.ledger: {path} cannot be written: {error.strerror or error}")
