"""Carry messages between two processes: in order, whole, and nothing but messages.

A frame is the length of its body (uint32, little endian), the number of its kind (uint8), and the
body: the message's fields in msgpack, as msgspec writes a dataclass. Sound is its samples as they
are; a picture is its height, its width and its values.

The kinds are the dataclasses listed here. Nothing else can be made by a frame, which is why it is
not pickle: what one side sends can make the other fail, never run.

Both sides run the same code, so that there are no versions. A stream socket keeps the order; what
it will not take at once waits in `Outgoing`, up to a bound.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections import Counter, deque
from collections.abc import Generator
from dataclasses import dataclass
from threading import Condition, Thread
from typing import Any, TypeAlias, get_args

import msgspec
import numpy as np

from model.errors import EngineError, OverloadedError
from model.messages import Command, EngineInfo, Output, Pcm
from model.metrics import EngineMetrics

# A worked example. `Cancel("s1", 7)` is in msgpack the map {"session_id": "s1", "turn": 7}, 21
# bytes. Its frame has 26: the length as 15 00 00 00, one byte for the kind, and the body.
# Source: the MessagePack specification, https://github.com/msgpack/msgpack/blob/master/spec.md.
_HEAD = struct.Struct("<IB")
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


_NUMBERS = {kind: number for number, kind in enumerate(KINDS)}


def as_written(value: Any) -> Any:
    """Return what an array is on the wire."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"no message holds a {type(value).__name__}")
    data = np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
    return data if value.ndim == 1 else (*value.shape[:2], data)


def from_written(kind: Any, value: Any) -> Any:
    """Return the array that something on the wire is."""
    # The bytes belong to the buffer that the next read goes into.
    if kind == Pcm:
        # A copy, since the receiver may write into it.
        return np.frombuffer(value, dtype=np.float32).copy()
    height, width, data = value
    return np.frombuffer(data, dtype=np.uint8).reshape(height, width, 3)


_write = msgspec.msgpack.Encoder(enc_hook=as_written).encode
_READERS = [msgspec.msgpack.Decoder(kind, dec_hook=from_written).decode for kind in KINDS]


def encode(message: Message) -> bytes:
    """Return the frame of a message.

    Raises:
        WireError: a text in it is not valid Unicode, or a number needs more than 64 bits.
    """
    try:
        body = _write(message)
    except (UnicodeEncodeError, OverflowError) as error:
        raise WireError(f"{type(message).__name__}: {error}") from None
    return _HEAD.pack(len(body), _NUMBERS[type(message)]) + body


def decode(number: int, body: bytes | memoryview) -> Message:
    """Return the message of a frame.

    Args:
        number: of its kind.
        body: its fields.

    Raises:
        WireError: it is none of ours.
    """
    try:
        message: Message = _READERS[number](body)
    except (ValueError, TypeError, IndexError) as error:
        raise WireError(f"expected a message, got {bytes(body[:80])!r} ({error!r})") from None
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
    # A read may end anywhere: within a head, within a body, or after several messages. What is
    # whole is passed on, and what is left is the beginning of the next.
    at = 0
    while len(waiting) - at >= _HEAD.size:
        num_bytes, number = _HEAD.unpack_from(waiting, at)
        start, at_next = at + _HEAD.size, at + _HEAD.size + num_bytes
        if len(waiting) < at_next:
            break
        body = bytes(waiting[start:at_next])
        at = at_next
        yield decode(number, body)
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
            # Only if nobody waits may a message go out at once; it would overtake the others.
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
            # The frame stays in the queue while it is sent, so later ones wait behind it.
            with contextlib.suppress(OSError):
                self._connection.sendall(frame)
            with self._changed:
                if self._waiting:
                    self._waiting.popleft()
                    self._num_waiting[session_id] -= 1
                    if not self._num_waiting[session_id]:
                        del self._num_waiting[session_id]
