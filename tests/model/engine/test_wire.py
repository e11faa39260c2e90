"""What one process says, the other hears: every kind of message, whole, in order, bounded."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, fields
from itertools import takewhile
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import messages
from model.engine.wire import KINDS, Message, Outgoing, WireError, decode, encode, received
from model.errors import OverloadedError
from model.messages import AppendAudio, AppendText, Close, Command, Output, ResponseAudio

# As JSON brings it from clients: any code point, halves of surrogate pairs included.
st.register_type_strategy(str, st.text(st.characters(codec=None)))
st.register_type_strategy(float, st.floats(allow_nan=False))
_SOUND = st.binary(max_size=64).map(lambda data: np.frombuffer(data[: len(data) // 4 * 4], "f4"))


def _messages(kind: type[Any]) -> st.SearchStrategy[Any]:
    has_sound = any(field.name == "pcm" for field in fields(kind))
    return st.builds(kind, pcm=_SOUND) if has_sound else st.from_type(kind)


def _over_the_wire(message: Message) -> Message:
    frame = encode(message)
    text_bytes, sound_bytes = struct.unpack("<II", frame[:8])
    assert len(frame) == 8 + text_bytes + sound_bytes
    return decode(frame[8 : 8 + text_bytes], frame[8 + text_bytes :])


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
    """Equal in every field and every bit of its sound, and of its own kind."""
    message = data.draw(_messages(kind))
    arrived: Any = _over_the_wire(message)
    assert type(arrived) is kind
    for field in fields(kind):
        sent, got = getattr(message, field.name), getattr(arrived, field.name)
        if field.name == "pcm":
            assert (got.dtype, got.tobytes()) == (np.float32, sent.tobytes())
            assert got.flags.writeable
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


@pytest.mark.parametrize(
    "text", [b"", b"{}", b'["Popen","rm"]', b'["Close"]', b'["Close","s","t"]', b'"Close"', b"[[]]"]
)
def test_nothing_but_messages(text: bytes) -> None:
    """What is none of the listed kinds, with its fields, is refused."""
    with pytest.raises(WireError, match="expected a message"):
        decode(text, b"")


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
