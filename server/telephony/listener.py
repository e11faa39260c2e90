"""Put the pieces of a caller's sound in order, and decode them."""

import numpy as np

from model.messages import Pcm
from server.audio.wire import AudioDecoder, WireEncoding
from server.telephony.messages import Media, MediaFormat

ENCODINGS: dict[str, WireEncoding] = {
    "PCMU": "audio/pcmu",
    "PCMA": "audio/pcma",
    "L16": "audio/pcm",
}
"""RTP's names of codecs (RFC 3551, section 6) → ours."""

# Messages on one TCP connection keep their order, but Telnyx says that it may have read them in
# another: "media frame order is not guaranteed". So a missing piece is waited for, up to 100 ms.
_MAX_HELD = 5
# A longer hole is not a lost piece: the caller was put on hold, or the stream stood still.
_MAX_HOLE_MS = 1_000
_MAX_JUMP = 1_000


class Listener:
    """Hold one caller's sound on its way in. It has no clock and does no I/O.

    Args:
        format_: of what comes.
        rate_hz: of what is returned.
        is_big: whether L16 has the larger byte first.
    """

    def __init__(self, format_: MediaFormat, rate_hz: int, *, is_big: bool) -> None:
        self._format = format_
        self._rate_hz = rate_hz
        self._swaps = is_big and format_.encoding == "L16"
        self._decoder = AudioDecoder(ENCODINGS[format_.encoding], format_.rate_hz, rate_hz)
        self._held: dict[int, Media] = {}
        self._next: int | None = None  # number of the piece that is due
        self._next_ms: int | None = None  # its time, if the piece before had one
        self.num_late = 0
        self.num_missing = 0

    def take(self, media: Media) -> list[Pcm]:
        """Return what a piece completes, in order: float32 [samples] each."""
        number = media.number
        if number is None:
            return [self._decoded(media)]
        if self._next is None or abs(number - self._next) > _MAX_JUMP:
            # The first one, or a stream that counts anew.
            self._held.clear()
            self._next, self._next_ms = number, media.time_ms
        if number < self._next or number in self._held:
            self.num_late += 1
            return []
        self._held[number] = media
        # For example, 7 is due and 9, 8, 10 have come: they wait. After 11 and 12 there are five,
        # and 7 is given up.
        if len(self._held) >= _MAX_HELD and self._next not in self._held:
            first = min(self._held)
            self.num_missing += first - self._next
            self._next = first
        return self._released()

    def _released(self) -> list[Pcm]:
        sound: list[Pcm] = []
        assert self._next is not None, "something came"
        while (media := self._held.pop(self._next, None)) is not None:
            self._next += 1
            hole_ms = self._hole_ms(media)
            if hole_ms:
                sound.append(np.zeros(hole_ms * self._rate_hz // 1000, dtype=np.float32))
            sound.append(self._decoded(media))
        return sound

    def _hole_ms(self, media: Media) -> int:
        """Return how much sound is missing before a piece, by its time."""
        if media.time_ms is None:
            self._next_ms = None
            return 0
        size = 2 if self._format.encoding == "L16" else 1
        length_ms = len(media.payload) * 1000 // (size * self._format.rate_hz)
        hole_ms = 0 if self._next_ms is None else media.time_ms - self._next_ms
        self._next_ms = media.time_ms + length_ms
        # Times say when a piece was sent, and vary a little. So only a whole missing piece is a
        # hole.
        return hole_ms if length_ms <= hole_ms <= _MAX_HOLE_MS else 0

    def _decoded(self, media: Media) -> Pcm:
        data = media.payload
        if self._swaps:
            data = np.frombuffer(data[: len(data) & ~1], dtype=">i2").astype("<i2").tobytes()
        return self._decoder.decode(data)
