"""Keep an engine's commands and outputs in a file, from which they can be replayed.

A log is a row of entries: the length of the body (uint32, little endian), a digest of 8 bytes, and
the body. The first body is a JSON object that says what made it. Each other body is a message in
msgpack: the name of its kind, and its fields as `model.engine.wire` writes them. Sound that the
engine made is there as a digest, since it follows from the rest.

Each digest is made of the one before and the body, so an entry that was changed is found, and so is
one that was taken out. A file that was cut off, by a crash, is read up to its last whole entry.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, get_args

import msgspec

from model.engine.wire import as_written, from_written
from model.errors import EngineError
from model.messages import Command, Output, ResponseAudio

FORMAT = 1

# A worked example: the entry of `Cancel("s1", 7)`. Its body is ["Cancel", {"session_id": "s1",
# "turn": 7}] in msgpack, 29 bytes, after 4 of length (1d 00 00 00) and 8 of digest.
_HEAD = struct.Struct("<I8s")
_DIGEST_BYTES = 8
# A minute of sound in one command is 5.8 MB at 24 kHz; ten pictures are less than this as well.
_MAX_BODY_BYTES = 256 << 20


class LogError(EngineError):
    """Report a file that is not a log, or was changed."""


@dataclass(frozen=True, slots=True)
class AudioMade:
    """Stand for a `ResponseAudio` in a log.

    Attributes:
        num_samples: of it.
        digest: of its samples, in hexadecimal.
    """

    session_id: str
    turn: int
    num_samples: int
    digest: str


Logged: TypeAlias = Command | Output | AudioMade

_KINDS: Mapping[str, type[Logged]] = {kind.__name__: kind for kind in get_args(Logged)}
_write = msgspec.msgpack.Encoder(enc_hook=as_written).encode
_parts = msgspec.msgpack.Decoder(tuple[str, msgspec.Raw]).decode
_readers = {
    name: msgspec.msgpack.Decoder(kind, dec_hook=from_written).decode
    for name, kind in _KINDS.items()
}


def loggable(message: Command | Output) -> Logged:
    """Return what stands for a message in a log."""
    if not isinstance(message, ResponseAudio):
        return message
    digest = blake2b(message.pcm.tobytes(), digest_size=_DIGEST_BYTES).hexdigest()
    return AudioMade(message.session_id, message.turn, len(message.pcm), digest)


class LogWriter:
    """Write a log; each entry is whole in the file before the next begins.

    Args:
        file: open for writing, at its start.
        header: what made it; JSON.
    """

    def __init__(self, file: BinaryIO, header: Mapping[str, Any]) -> None:
        self._file = file
        self._digest = b"\0" * _DIGEST_BYTES
        self._entry(json.dumps({"format": FORMAT, **header}).encode())

    def write(self, message: Command | Output) -> int:
        """Add a message; returns how many bytes that took."""
        logged = loggable(message)
        return self._entry(_write((type(logged).__name__, logged)))

    def _entry(self, body: bytes) -> int:
        self._digest = _chained(self._digest, body)
        return self._file.write(_HEAD.pack(len(body), self._digest) + body)


@dataclass(frozen=True, slots=True)
class Log:
    """Hold a log that was read.

    Attributes:
        header: what made it.
        entries: in the order in which they passed the gateway.
        changed: index of the first entry that was changed after it was written; None for none.
        is_whole: False where the end was cut off.
    """

    header: Mapping[str, Any]
    entries: tuple[Logged, ...]
    changed: int | None
    is_whole: bool


def read_log(path: Path) -> Log:
    """Read a log.

    Raises:
        LogError: it is none, or of another format.
        OSError: it cannot be read.
    """
    bodies: list[bytes] = []
    changed: int | None = None
    is_whole = True
    digest = b"\0" * _DIGEST_BYTES
    with path.open("rb") as file:
        for body, found in _bodies(file):
            if body is None:
                is_whole = False
                break
            digest = _chained(digest, body)
            if digest != found:
                # Go on with the digest in the file, so one change is reported as one.
                changed = len(bodies) - 1 if changed is None else changed
                digest = found
            bodies.append(body)
    header = _header(bodies[0] if bodies else b"", path)
    try:
        entries = tuple(_message(body) for body in bodies[1:])
    except (msgspec.DecodeError, ValueError, TypeError) as error:
        raise LogError(f"{path}: expected messages, got something else ({error})") from None
    return Log(header, entries, changed, is_whole)


def _bodies(file: BinaryIO) -> Iterator[tuple[bytes | None, bytes]]:
    """Yield each body with its digest; None at an end that was cut off."""
    while head := file.read(_HEAD.size):
        if len(head) < _HEAD.size:
            yield None, b""
            return
        num_bytes, digest = _HEAD.unpack(head)
        body = file.read(num_bytes) if num_bytes <= _MAX_BODY_BYTES else b""
        if len(body) < num_bytes:
            yield None, b""
            return
        yield body, digest


def _header(body: bytes, path: Path) -> Mapping[str, Any]:
    try:
        header = json.loads(body)
    except ValueError:
        header = None
    if not isinstance(header, dict) or "format" not in header:
        raise LogError(f"{path}: expected a log of an engine, got something else")
    if header["format"] != FORMAT:
        raise LogError(f"{path}: expected format {FORMAT}, got {header['format']}")
    return header


def _message(body: bytes) -> Logged:
    name, fields = _parts(body)
    if name not in _readers:
        raise LogError(f"expected a message's kind, got {name!r}")
    message: Logged = _readers[name](fields)
    return message


def _chained(digest: bytes, body: bytes) -> bytes:
    return blake2b(digest + body, digest_size=_DIGEST_BYTES).digest()
