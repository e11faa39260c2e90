"""What one process says, the other hears: every kind of message, whole, in order, bounded."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, fields
from itertools import takewhile
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from model import messages
from model.engine.wire import KINDS, Message, Outgoing, WireError, decode, encode, received
from model.errors import OverloadedError
from model.messages import AppendAudio, AppendText, Close, Command, Output, ResponseAudio, Truncate

st.register_type_strategy(int, st.integers(-(2**63), 2**63 - 1))
st.register_type_strategy(float, st.floats(allow_nan=False))
_SOUND = st.binary(max_size=64).map(lambda data: np.frombuffer(data[: len(data) // 4 * 4], "f4"))


_SIDE = st.integers(1, 5)
_PICTURES = st.lists(arrays("u1", st.tuples(_SIDE, _SIDE, st.just(3))), max_size=3).map(tuple)


def _messages(kind: type[Any]) -> st.SearchStrategy[Any]:
    names = {field.name for field in fields(kind)}
    data = {name: what for name, what in (("pcm", _SOUND), ("images", _PICTURES)) if name in names}
    return st.builds(kind, **data) if data else st.from_type(kind)


def _over_the_wire(message: Message) -> Message:
    frame = encode(message)
    num_bytes, number = struct.unpack("<IB", frame[:5])
    assert len(frame) == 5 + num_bytes
    return decode(number, frame[5:])


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Give both ends of a connection."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_all_that_crosses_is_listed() -> None:
    """Every command and every output has its frame."""
    assert {*Command.__args__, *Output.__args__} <= set(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_a_message_arrives_as_it_was(kind: type[Any], data: st.DataObject) -> None:
    """Equal in every field and every bit of its sound and pictures, and of its own kind."""
    message = data.draw(_messages(kind))
    arrived: Any = _over_the_wire(message)
    assert type(arrived) is kind
    for field in fields(kind):
        sent, got = getattr(message, field.name), getattr(arrived, field.name)
        if field.name == "pcm":
            assert (got.dtype, got.tobytes()) == (np.float32, sent.tobytes())
            assert got.flags.writeable
        elif field.name == "images":
            assert [image.tolist() for image in got] == [image.tolist() for image in sent]
            assert all(image.dtype == np.uint8 for image in got)
        elif field.name == "metrics":
            assert asdict(got) == asdict(sent)
        else:
            assert (got, type(got)) == (sent, type(sent))


def test_sound_of_any_layout() -> None:
    """A piece of something larger arrives as a piece."""
    pcm = np.arange(20, dtype=np.float32)[3:17:2]
    arrived = _over_the_wire(AppendAudio("s", pcm))
    assert isinstance(arrived, AppendAudio)
    assert arrived.pcm.tolist() == pcm.tolist()


_CLOSE, _TEXT = KINDS.index(Close), KINDS.index(AppendText)
_PICTURE = {"session_id": "s", "item_id": "i", "role": "user", "text": ""}


@pytest.mark.parametrize(
    ("number", "fields"),
    [
        (_CLOSE, {}),
        (_CLOSE, {"session_id": 1}),
        (_CLOSE, ["s"]),
        (_CLOSE, None),
        (len(KINDS), {"session_id": "s"}),
        (_TEXT, {**_PICTURE, "role": "root"}),
        (_TEXT, {**_PICTURE, "images": None}),
        (_TEXT, {**_PICTURE, "images": [[2, 2, bytes(3)]]}),
        (_TEXT, {**_PICTURE, "images": [[1, 1, bytes(4)]]}),
        (_TEXT, {**_PICTURE, "images": [[1, bytes(3)]]}),
        (_TEXT, {**_PICTURE, "images": [["1", 1, bytes(3)]]}),
    ],
)
def test_nothing_but_messages(number: int, fields: object) -> None:
    """What is none of the listed kinds, with fields of their types, is refused."""
    with pytest.raises(WireError, match="expected a message"):
        decode(number, msgspec.msgpack.encode(fields))


def test_a_body_that_is_cut_short() -> None:
    """Half a message is none."""
    with pytest.raises(WireError, match="expected a message"):
        decode(_CLOSE, encode(Close("s"))[5:-1])


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (AppendText("s", "i", "user", "\ud800"), "AppendText: .*surrogates not allowed"),
        (Truncate("s", "i", 2**64), "Truncate: .*ints"),
    ],
)
def test_what_does_not_cross(message: Message, reason: str) -> None:
    """Half a character is no text, and numbers have 64 bits; whoever sends it is told."""
    with pytest.raises(WireError, match=reason):
        encode(message)


def test_order_and_end(ends: tuple[socket.socket, socket.socket]) -> None:
    """More than the connection holds arrives in order; a frame cut short is none."""
    ours, theirs = ends
    outgoing = Outgoing(ours, max_waiting=1000)
    pcm = np.ones(20_000, dtype=np.float32)
    for number in range(50):
        outgoing.put(ResponseAudio("s", number, pcm))  # type: ignore[arg-type]  # any message
    messages_in = received(theirs)
    turns = [next(messages_in) for _ in range(50)]
    assert [each.turn for each in turns if isinstance(each, ResponseAudio)] == [*range(50)]
    theirs_again = encode(Close("s"))
    ours.sendall(theirs_again + theirs_again[:-1])
    outgoing.close()
    assert [*messages_in] == [Close("s")]


def test_a_reader_that_stalls(ends: tuple[socket.socket, socket.socket]) -> None:
    """What waits is bounded and its sender never waits; what makes work less is always taken."""
    ours, theirs = ends
    outgoing = Outgoing(ours, max_waiting=3)
    long = AppendText("s", "i", "user", "w" * 300_000)
    num_put = 0
    with suppress(OverloadedError):
        while num_put < 100:
            outgoing.put(long)
            num_put += 1
    assert 3 <= num_put < 100, "it was refused in the end"
    outgoing.put(Close("s"), is_relief=True)
    taken = list(takewhile(lambda message: message != Close("s"), received(theirs)))
    assert taken == [long] * num_put
    outgoing.close()
    outgoing.put(Close("s"))  # to nobody


def test_closing_does_not_wait_for_a_reader(ends: tuple[socket.socket, socket.socket]) -> None:
    """A sender that is stuck in the middle of a frame lets go."""
    ours, theirs = ends
    outgoing = Outgoing(ours, max_waiting=3)
    outgoing.put(AppendText("s", "i", "user", "w" * 3_000_000))
    outgoing.close()
    assert [*received(theirs)] == []


def test_the_messages_stay_small_and_frozen() -> None:
    """Nothing mutable crosses the line, except for sound."""
    for kind in (*Command.__args__, *Output.__args__):
        assert kind.__dataclass_params__.frozen, kind
        assert kind.__module__ == messages.__name__
