"""Keep the sound of items, as much as a bounded memory holds.

Clients may ask for an item's audio. What is kept is 16-bit at the engine's rate; when the budget
is spent, the oldest item's sound goes first. An item has its whole sound or none of it.
"""

import base64
from dataclasses import dataclass, field

import numpy as np
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
# Sound comes 80 ms at a time, and to encode a second of it costs little more than that.
_ENCODED_TOGETHER = 16_000


@dataclass(slots=True)
class _Sound:
    """Hold one item's sound.

    Attributes:
        chunks: PCM16.
        fresh: what comes after them, not encoded yet: float32 [samples] each.
        num_samples: of both.
    """

    chunks: list[bytes] = field(default_factory=list)
    fresh: list[Pcm] = field(default_factory=list)
    num_samples: int = 0
    _num_fresh: int = 0

    def add(self, pcm: Pcm) -> None:
        self.fresh.append(pcm)
        self.num_samples += len(pcm)
        self._num_fresh += len(pcm)
        if self._num_fresh >= _ENCODED_TOGETHER:
            self._encode()

    def whole(self) -> bytes:
        """Return all of it, as PCM16."""
        self._encode()
        self.chunks = [b"".join(self.chunks)]
        return self.chunks[0]

    def _encode(self) -> None:
        if self.fresh:
            self.chunks.append(encode_pcm(np.concatenate(self.fresh)))
            self.fresh.clear()
            self._num_fresh = 0


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
        self._kept: dict[str, _Sound] = {}  # oldest item first

    def begin(self, item_id: str) -> None:
        """Begin an item's sound anew."""
        self.forget(item_id)
        self._kept[item_id] = _Sound()

    def add(self, item_id: str, pcm: Pcm) -> None:
        """Add to an item's sound; does nothing for an item whose sound has been given up."""
        if item_id not in self._kept:
            return
        if len(pcm) * _BYTES_PER_SAMPLE > self._max_bytes:
            self.forget(item_id)  # as it would be below, once it was encoded
            return
        self._kept[item_id].add(pcm)
        self._num_bytes += len(pcm) * _BYTES_PER_SAMPLE
        while self._num_bytes > self._max_bytes:
            self.forget(next(iter(self._kept)))

    def shorten(self, item_id: str, audio_ms: int) -> None:
        """Forget the sound of an item after a moment."""
        if item_id not in self._kept:
            return
        num_samples = audio_ms * self._rate_hz // 1000
        heard = self._kept[item_id].whole()[: num_samples * _BYTES_PER_SAMPLE]
        self.begin(item_id)
        num_heard = len(heard) // _BYTES_PER_SAMPLE
        self._kept[item_id] = _Sound([heard], num_samples=num_heard)
        self._num_bytes += len(heard)

    def forget(self, item_id: str) -> None:
        """Forget an item's sound."""
        given_up = self._kept.pop(item_id, None)
        if given_up is not None:
            self._num_bytes -= given_up.num_samples * _BYTES_PER_SAMPLE

    def pcm(self, item_id: str) -> Pcm | None:
        """Return an item's sound: float32 [samples]; None if it is not kept."""
        sound = self._kept.get(item_id)
        return PcmDecoder().decode(sound.whole()) if sound and sound.num_samples else None

    def base64(self, item_id: str, start_ms: int = 0, end_ms: int | None = None) -> str | None:
        """Return an item's sound between two moments as base64 of PCM16 at 24 kHz.

        None if it is not kept, or if it would make an event larger than clients take.
        """
        kept = self._kept.get(item_id)
        num_bytes = kept.num_samples * _BYTES_PER_SAMPLE if kept else 0
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
