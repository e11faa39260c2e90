"""Cut a peer's long WebSocket frames into short ones, as they come.

`websockets` takes a frame when all of it is there: of one of 24 MiB it makes three copies at once,
and nothing else happens for 60 ms. RFC 6455, section 5.4, lets anybody on the way cut a frame into
fragments, and says that a message means the same then. So here the server does it for itself.

    FIN text, 2.5 MiB        →   text, 1 MiB | cont, 1 MiB | FIN cont, 0.5 MiB

A mask is repeated every four bytes (section 5.3), and every fragment but the last has a multiple of
that: so all keep the frame's own mask, and their payload stays as it is.
"""

import struct

# Three copies of it take 3 ms. Blocks that are shorter than 512 KiB would not go back to the system
# when they are freed (`server.memory`).
FRAGMENT_BYTES = 1 << 20

_FIN, _MASKED, _OPCODE = 0x80, 0x80, 0x0F
_CONT, _LAST_DATA = 0x0, 0x2  # then text and binary; from 8 on come control frames
_END = b"\r\n\r\n"  # of a request, RFC 9112, section 2.1
_LENGTH_16, _LENGTH_64 = 126, 127


class FrameCutter:
    """Cut the frames of one peer, which follow its HTTP request.

    It looks at lengths only: what is wrong with a frame stays wrong.

    Args:
        max_bytes: of a message; a longer frame is not cut, since it is refused by its length.
        fragment_bytes: of what they are cut into, a multiple of 4.
    """

    def __init__(self, max_bytes: int, fragment_bytes: int = FRAGMENT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._fragment_bytes = fragment_bytes
        self._is_request = True  # until an empty line ends it
        self._head = bytearray()  # of the next frame, or the end of the request so far
        self.num_passing = 0
        """Bytes that follow in the present fragment: all of one frame."""
        self._num_after = 0  # bytes of the present frame that follow after that
        self._fin = 0  # of the frame that is being cut
        self._mask = b""
        self.num_frames = 0
        """Frames of the present message, as the peer sent them."""

    def feed(self, data: bytes) -> bytes:
        """Return the next of the stream, for the next of it."""
        passed = bytearray()
        place = 0
        while place < len(data):
            if self.num_passing:
                end = min(place + self.num_passing, len(data))
                passed += data[place:end]
                self.num_passing -= end - place
                place = end
                if not self.num_passing and self._num_after:
                    passed += self._next_head(_CONT)
                continue
            self._head.append(data[place])
            place += 1
            if self._is_request:
                passed.append(self._head[-1])
                del self._head[: -len(_END)]
                if self._head == _END:
                    self._is_request = False
                    self._head.clear()
            elif len(self._head) >= 2 and len(self._head) == _head_length(self._head):
                passed += self._begin(bytes(self._head))
                self._head.clear()
        return bytes(passed)

    def _begin(self, head: bytes) -> bytes:
        """Return what takes the place of a frame's head.

        Section 5.2: FIN and opcode, MASK and length, a longer length of 2 or 8 bytes, the mask.
        """
        opcode = head[0] & _OPCODE
        length = head[1] & ~_MASKED
        if length == _LENGTH_16:
            (length,) = struct.unpack_from("!H", head, 2)
        elif length == _LENGTH_64:
            (length,) = struct.unpack_from("!Q", head, 2)
        if opcode <= _LAST_DATA:
            self.num_frames = self.num_frames + 1 if opcode == _CONT else 1
        if opcode > _LAST_DATA or not self._fragment_bytes < length <= self._max_bytes:
            self.num_passing = length
            return head
        self._fin = head[0] & _FIN
        self._mask = head[-4:] if head[1] & _MASKED else b""
        self._num_after = length
        return self._next_head(head[0] & ~_FIN)

    def _next_head(self, first: int) -> bytes:
        """Return the head of the next fragment.

        Args:
            first: opcode and reserved bits.
        """
        self.num_passing = min(self._num_after, self._fragment_bytes)
        self._num_after -= self.num_passing
        if not self._num_after:
            first |= self._fin
        is_masked = _MASKED if self._mask else 0
        return struct.pack("!BBQ", first, is_masked | _LENGTH_64, self.num_passing) + self._mask


def _head_length(head: bytearray) -> int:
    length = {_LENGTH_16: 2, _LENGTH_64: 8}.get(head[1] & ~_MASKED, 0)
    return 2 + length + (4 if head[1] & _MASKED else 0)
