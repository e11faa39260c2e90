"""Carry messages between two processes: in order, whole, and nothing but messages.

A frame is two lengths (uint32, little endian), then that many bytes of JSON and of sound:

    ["AppendAudio", "sess_1"]      the kind, then its fields in order; an inner value is a list
    <float32 samples>              of the one field that is PCM, where there is one

The kinds are the dataclasses listed here. Nothing else can be made by a frame, which is why it is
not pickle: what one side sends can make the other fail, never run. JSON of the few short fields
costs some microseconds, and sound is copied as it is.

Both sides run the same code, so that there are no versions. A stream socket keeps the order; what
it will not take at once waits in `Outgoing`, up to a bound.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, fields, is_dataclass
from operator import attrgetter
from threading import Condition, Thread
from types import GenericAlias
from typing import Any, TypeAlias, get_args, get_origin, get_type_hints

import numpy as np

from model.errors import EngineError, OverloadedError
from model.messages import Command, EngineInfo, Output, Pcm
from model.metrics import EngineMetrics

_LENGTHS = struct.Struct("<II")
_READ_BYTES = 1 << 18


class WireError(EngineError):
    """Report bytes that are no frame of ours."""


@dataclass(frozen=True, slots=True)
class Described:
    """Say that the engine's core is built.

    Attributes:
        info: describes the engine.
        max_queued_commands: that may wait for it.
    """

    info: EngineInfo
    max_queued_commands: int


@dataclass(frozen=True, slots=True)
class Begin:
    """Ask for the engine to be warmed up and started."""


@dataclass(frozen=True, slots=True)
class Began:
    """Say that the engine is ready for commands."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Say that the engine cannot be built or started.

    Attributes:
        kind: name of the exception.
        message: of the exception.
    """

    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Report:
    """Pass on the engine's counters as they are."""

    metrics: EngineMetrics


@dataclass(frozen=True, slots=True)
class Silence:
    """Stand for nothing having come for a while; it never crosses the wire."""


ToEngine: TypeAlias = Begin | Command
FromEngine: TypeAlias = Described | Began | Refused | Report | Output
Message: TypeAlias = ToEngine | FromEngine
KINDS: tuple[type[Message], ...] = tuple(dict.fromkeys(get_args(Message)))


class _Kind:
    """Write and read the messages of one kind."""

    def __init__(self, kind: type[Any]) -> None:
        hints = get_type_hints(kind)
        names = [field.name for field in fields(kind)]
        self._make = kind
        self.sound = next((name for name in names if hints[name] == Pcm), None)
        self._names = [name for name in names if name != self.sound]
        self._readers = [_reader(hints[name]) for name in self._names]
        self._get = attrgetter("__class__.__name__", *self._names)

    def values(self, message: Any) -> Any:
        """Return the kind's name and the fields, without sound."""
        got = self._get(message)
        return got if self._names else (got,)

    def read(self, values: list[Any], sound: bytes) -> Any:
        """Make a message of the fields as they were in JSON."""
        made = {
            name: read(value)
            for name, read, value in zip(self._names, self._readers, values, strict=True)
        }
        if self.sound is not None:
            # A copy, since the receiver may write into it.
            made[self.sound] = np.frombuffer(sound, dtype=np.float32).copy()
        return self._make(**made)


def _reader(hint: Any) -> Callable[[Any], Any]:
    """Return what turns a value of JSON into one of a field's type."""
    if is_dataclass(hint):
        readers = [_reader(kind) for kind in get_type_hints(hint).values()]
        return lambda value: hint(
            *(read(each) for read, each in zip(readers, value, strict=True))  # type: ignore[operator]  # a class
        )
    if isinstance(hint, GenericAlias) and get_origin(hint) is tuple:
        read_each = _reader(get_args(hint)[0])
        return lambda value: tuple(read_each(each) for each in value)
    return lambda value: value


def _inner(value: Any) -> list[Any]:
    """Turn a dataclass within a message into a list."""
    return [getattr(value, field.name) for field in fields(value)]


_KINDS = {kind.__name__: _Kind(kind) for kind in KINDS}
_write = json.JSONEncoder(separators=(",", ":"), default=_inner).encode


def encode(message: Message) -> bytes:
    """Return the frame of a message."""
    kind = _KINDS[type(message).__name__]
    text = _write(kind.values(message)).encode("ascii")
    if kind.sound is None:
        return _LENGTHS.pack(len(text), 0) + text
    sound = np.ascontiguousarray(getattr(message, kind.sound), dtype=np.float32).data.cast("B")
    return b"".join((_LENGTHS.pack(len(text), len(sound)), text, sound))


def decode(text: bytes, sound: bytes) -> Message:
    """Return the message of a frame.

    Args:
        text: its JSON.
        sound: its samples.

    Raises:
        WireError: it is none of ours.
    """
    try:
        name, *values = json.loads(text)
        message: Message = _KINDS[name].read(values, sound)
    except (ValueError, TypeError, KeyError) as error:
        raise WireError(f"expected a message, got {text[:80]!r} ({error!r})") from None
    return message


def received(connection: socket.socket) -> Generator[Message | Silence, None, None]:
    """Yield the messages that come, until the other side is gone.

    Where `note_silence` asks for it, a `Silence` comes whenever nothing else has come for a while.

    Raises:
        WireError: something else comes.
    """
    waiting = bytearray()
    while True:
        try:
            chunk = connection.recv(_READ_BYTES)
        except BlockingIOError:  # so it says that the socket's time is up
            yield Silence()
            continue
        except OSError:
            return
        if not chunk:
            return  # its last words may have been cut short
        waiting += chunk
        yield from _whole(waiting)


def _whole(waiting: bytearray) -> Generator[Message, None, None]:
    """Yield the messages that are there as a whole, and leave the rest."""
    at = 0
    while len(waiting) - at >= _LENGTHS.size:
        text_bytes, sound_bytes = _LENGTHS.unpack_from(waiting, at)
        text_at = at + _LENGTHS.size
        end = text_at + text_bytes + sound_bytes
        if len(waiting) < end:
            break
        text = bytes(waiting[text_at : text_at + text_bytes])
        sound = bytes(waiting[text_at + text_bytes : end])
        at = end
        yield decode(text, sound)
    del waiting[:at]


def note_silence(connection: socket.socket, seconds: float) -> None:
    """Let `received` tell when nothing comes for so long; sending is not affected."""
    whole = int(seconds)
    # A `struct timeval` is two C longs on Linux, which is where engines have processes.
    timeval = struct.pack("@ll", whole, int((seconds - whole) * 1e6))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)


class Outgoing:
    """Send messages in order, from any thread, without making the sender wait.

    What the connection has room for goes out at once. The rest waits for a thread that does
    nothing but wait for room, and there is a bound on how much of one session: then the other side
    has stalled. Sessions keep far below it, since they wait for `Taken`.

    Args:
        connection: a connected stream socket.
        max_waiting: messages of one session that may wait.
    """

    def __init__(self, connection: socket.socket, max_waiting: int) -> None:
        self._connection = connection
        self._max_waiting = max_waiting
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._num_waiting: Counter[str] = Counter()  # by session
        self._changed = Condition()
        self._is_closed = False
        self._thread = Thread(target=self._run, name="engine outgoing", daemon=True)
        self._thread.start()

    def put(self, message: Command, *, is_relief: bool = False) -> None:
        """Send a message; after the other side's end, nothing happens.

        Args:
            message: to be sent.
            is_relief: True if it makes work less, and must not be refused.

        Raises:
            OverloadedError: too many of its session wait already.
        """
        frame, session_id = encode(message), message.session_id
        with self._changed:
            if self._is_closed:
                return
            num_waiting = self._num_waiting.get(session_id, 0)
            if num_waiting >= self._max_waiting and not is_relief:
                raise OverloadedError(
                    f"{num_waiting} commands of this session wait for the engine already"
                )
            sent = 0 if self._waiting else self._send_now(frame)
            if sent < len(frame):
                self._waiting.append((session_id, frame[sent:]))
                self._num_waiting[session_id] += 1
                self._changed.notify()

    def close(self) -> None:
        """Send no more, and end the connection in both directions."""
        with self._changed:
            self._is_closed = True
            self._waiting.clear()
            self._num_waiting.clear()
            self._changed.notify()
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def _send_now(self, frame: bytes) -> int:
        try:
            return self._connection.send(frame, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except OSError:
            return len(frame)  # the other side is gone, and with it whoever would read this

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._is_closed:
                        return
                    self._changed.wait()
                session_id, frame = self._waiting[0]
            # It stays in its place meanwhile, so that what comes later waits behind it.
            with contextlib.suppress(OSError):
                self._connection.sendall(frame)
            with self._changed:
                if self._waiting:
                    self._waiting.popleft()
                    self._num_waiting[session_id] -= 1
                    if not self._num_waiting[session_id]:
                        del self._num_waiting[session_id]
