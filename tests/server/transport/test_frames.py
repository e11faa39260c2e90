"""Long frames are cut into short ones, and mean the same."""

import struct

from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from server.transport.frames import FrameCutter

FRAGMENT_BYTES = 4_096
MAX_BYTES = 5 * FRAGMENT_BYTES
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
LENGTHS = st.one_of(
    st.integers(0, 200),
    st.sampled_from([FRAGMENT_BYTES + n for n in (-1, 0, 1)]),
    st.sampled_from([2 * FRAGMENT_BYTES + n for n in (-3, 0, 7)]),
)


def _frame(opcode: int, payload: bytes, *, fin: bool = True, mask: bytes = b"abcd") -> bytes:
    """Make a client's frame, RFC 6455, section 5.2."""
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
    number = int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")
    masked = number.to_bytes(len(payload), "little")
    head = struct.pack("!B", (0x80 if fin else 0) | opcode)
    if len(payload) < 126:
        head += struct.pack("!B", 0x80 | len(payload))
    elif len(payload) < 1 << 16:
        head += struct.pack("!BH", 0x80 | 126, len(payload))
    else:
        head += struct.pack("!BQ", 0x80 | 127, len(payload))
    return head + mask + masked


def _parsed(stream: list[bytes]) -> tuple[list[Frame], type[Exception] | None]:
    """Return what a server's parser makes of it."""
    parser = ServerProtocol(max_size=MAX_BYTES)
    frames = []
    for data in stream:
        parser.receive_data(data)
        for event in parser.events_received():
            if isinstance(event, Request):
                parser.send_response(parser.accept(event))
            else:
                assert isinstance(event, Frame)
                frames.append(event)
        if parser.parser_exc is not None:
            return frames, type(parser.parser_exc)
    return frames, None


def _messages(frames: list[Frame]) -> list[tuple[Opcode, bytes]]:
    """Put fragments together; control frames stand where they came."""
    messages: list[tuple[Opcode, bytes]] = []
    opcode, pieces = Opcode.CONT, b""
    for frame in frames:
        if frame.opcode >= Opcode.CLOSE:
            messages.append((frame.opcode, bytes(frame.data)))
            continue
        opcode = opcode if frame.opcode is Opcode.CONT else frame.opcode
        pieces += bytes(frame.data)
        if frame.fin:
            messages.append((opcode, pieces))
            pieces = b""
    return messages


def _pieces(stream: bytes, size: int) -> list[bytes]:
    return [stream[start : start + size] for start in range(0, len(stream), size)]


@given(
    st.lists(
        st.tuples(st.sampled_from([1, 2]), st.lists(LENGTHS, min_size=1, max_size=3)), max_size=3
    ),
    st.integers(1, 3_000),
    st.binary(min_size=4, max_size=4),
)
def test_messages_are_the_same(
    messages: list[tuple[int, list[int]]], size: int, mask: bytes
) -> None:
    """However they were cut before, with pings in between, and however they arrive."""
    stream = REQUEST
    for opcode, lengths in messages:
        for number, length in enumerate(lengths):
            payload = (bytes(range(65, 91)) * (length // 26 + 1))[:length]
            is_last = number == len(lengths) - 1
            stream += _frame(opcode if not number else 0, payload, fin=is_last, mask=mask)
            stream += _frame(9, b"?")
    cutter = FrameCutter(MAX_BYTES, FRAGMENT_BYTES)
    cut, error = _parsed([cutter.feed(piece) for piece in _pieces(stream, size)])
    whole, whole_error = _parsed([stream])
    assert error is whole_error
    assert _messages(cut) == _messages(whole)
    assert all(len(frame.data) <= FRAGMENT_BYTES for frame in cut)


def test_what_is_too_long_is_refused_by_its_head() -> None:
    """Before any of it has come."""
    cutter = FrameCutter(MAX_BYTES, FRAGMENT_BYTES)
    head = struct.pack("!BBQ", 0x81, 0xFF, MAX_BYTES + 1) + b"abcd"
    _, error = _parsed([cutter.feed(REQUEST), cutter.feed(head)])
    assert error is not None


def test_what_is_wrong_stays_wrong() -> None:
    """An unmasked frame, reserved bits, and a ping of a megabyte."""
    for head in (
        struct.pack("!BBQ", 0x81, 0x7F, MAX_BYTES),
        struct.pack("!BBQ", 0xC1, 0xFF, FRAGMENT_BYTES + 1),
        struct.pack("!BBQ", 0x89, 0xFF, 1 << 20),
    ):
        cutter = FrameCutter(1 << 21, FRAGMENT_BYTES)
        stream = head + b"abcd" + bytes(1 << 20)
        _, error = _parsed([cutter.feed(REQUEST), cutter.feed(stream)])
        assert error is not None


def test_frames_of_a_message_are_counted_as_they_came() -> None:
    """Not as they were cut."""
    cutter = FrameCutter(MAX_BYTES, FRAGMENT_BYTES)
    cutter.feed(REQUEST + _frame(1, bytes(3 * FRAGMENT_BYTES), fin=False))
    assert cutter.num_frames == 1
    cutter.feed(_frame(9, b"") + _frame(0, b"", fin=False) * 3)
    assert cutter.num_frames == 4
    cutter.feed(_frame(0, b"") + _frame(1, b""))
    assert cutter.num_frames == 1


def test_it_says_how_much_of_a_frame_is_to_come() -> None:
    """Of the frame whose head came last; of a fragment only, where it is cut."""
    cutter = FrameCutter(MAX_BYTES, FRAGMENT_BYTES)
    cutter.feed(REQUEST)
    frame = _frame(Opcode.TEXT, bytes(1_000))
    cutter.feed(frame[:108])
    assert cutter.num_passing == 900
    cutter.feed(frame[108:])
    assert cutter.num_passing == 0
    cutter.feed(_frame(Opcode.TEXT, bytes(FRAGMENT_BYTES + 1))[:8])
    assert cutter.num_passing == FRAGMENT_BYTES
