"""Keep the sound of items, as much as a bounded memory holds.

Clients may ask for an item's audio. What is kept is 16-bit at the engine's rate; when the budget
is spent, the oldest item's sound goes first. An item has its whole sound or none of it.
"""

import base64

import soxr

from model.messages import Pcm
from server.audio.pcm import PcmDecoder, encode_pcm

# Source: Realtime API reference, client events, conversation.item.retrieve: the answer holds the
# audio as the server has it. How long it is kept the API does not say; here as long as there is
# room.
#
# Eight minutes of 16 kHz are 8 * 60 * 16,000 * 2 = 15.4 MB; with the default of 8 MiB a session
# keeps the sound of about the last four.
_BYTES_PER_SAMPLE = 2
_CLIENT_RATE_HZ = 24_000  # of what a retrieve answers
# Clients of many libraries take frames up to 1 MiB; base64 makes 4 characters of 3 bytes.
_MAX_CLIENT_BYTES = (1 << 20) * 3 // 4 - 16_384


class Recordings:
    """Hold the sound of a session's items.

    Args:
        max_bytes: for all items together.
        rate_hz: of the sound.
    """

    def __init__(self, max_bytes: int, rate_hz: int) -> None:
        self._max_bytes = max_bytes
        self._rate_hz = rate_hz
        self._num_bytes = 0
        self._kept: dict[str, list[bytes]] = {}  # PCM16 chunks, oldest item first

    def begin(self, item_id: str) -> None:
        """Begin an item's sound anew."""
        self.forget(item_id)
        self._kept[item_id] = []

    def add(self, item_id: str, pcm: Pcm) -> None:
        """Add to an item's sound; does nothing for an item whose sound has been given up."""
        if item_id not in self._kept:
            return
        if len(pcm) * _BYTES_PER_SAMPLE > self._max_bytes:
            self.forget(item_id)  # as it would be below, once it was encoded
            return
        data = encode_pcm(pcm)
        self._kept[item_id].append(data)
        self._num_bytes += len(data)
        while self._num_bytes > self._max_bytes:
            self.forget(next(iter(self._kept)))

    def shorten(self, item_id: str, audio_ms: int) -> None:
        """Forget the sound of an item after a moment."""
        if item_id not in self._kept:
            return
        num_samples = audio_ms * self._rate_hz // 1000
        heard = b"".join(self._kept[item_id])[: num_samples * _BYTES_PER_SAMPLE]
        self.begin(item_id)
        self._kept[item_id].append(heard)
        self._num_bytes += len(heard)

    def forget(self, item_id: str) -> None:
        """Forget an item's sound."""
        self._num_bytes -= sum(len(chunk) for chunk in self._kept.pop(item_id, []))

    def pcm(self, item_id: str) -> Pcm | None:
        """Return an item's sound: float32 [samples]; None if it is not kept."""
        chunks = self._kept.get(item_id)
        return PcmDecoder().decode(b"".join(chunks)) if chunks else None

    def base64(self, item_id: str, start_ms: int = 0, end_ms: int | None = None) -> str | None:
        """Return an item's sound between two moments as base64 of PCM16 at 24 kHz.

        None if it is not kept, or if it would make an event larger than clients take.
        """
        num_bytes = sum(len(chunk) for chunk in self._kept.get(item_id, []))
        if num_bytes * _CLIENT_RATE_HZ > _MAX_CLIENT_BYTES * self._rate_hz:
            return None
        pcm = self.pcm(item_id)
        if pcm is None:
            return None
        end = None if end_ms is None else end_ms * self._rate_hz // 1000
        pcm = pcm[start_ms * self._rate_hz // 1000 : end]
        if not len(pcm):
            return None
        # The whole sound is there, so the resampler for streams, which is slower, is not needed.
        played = soxr.resample(pcm, self._rate_hz, _CLIENT_RATE_HZ)
        return base64.b64encode(encode_pcm(played)).decode("ascii")
