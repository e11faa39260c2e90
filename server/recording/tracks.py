"""Lay what the user said and what the assistant was heard to say side by side, on one clock.

The left track is the user, at the time when the sound arrived. The right track is the assistant, at
the time when it was played. A transport that plays reports that itself, and when it drops what it
has sent ahead. Over a WebSocket the client plays: from the moment when a reply is sent until it is
interrupted, and afterwards it says how much was heard.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from model.messages import Pcm

Stereo = npt.NDArray[np.int16]
"""Shape [samples, 2], the user left and the assistant right."""

_Mono = npt.NDArray[np.int16]

# A microphone's sound comes unevenly. If it is late by no more than this, it follows the sound
# before without a gap; else it was sent after a pause.
_JITTER_S = 0.2
# Frames that are paced by a clock follow each other, although the clock is not exact.
_FOLLOWS_S = 0.01
# A client says how much of a reply was heard a moment after it was interrupted.
HOLD_S = 3.0
_BLOCK_S = 10
_FULL_SCALE = 32_767

# A worked example over a WebSocket, in seconds. A reply of 4 s is sent at 10.0, within half a
# second. The user speaks at 12.5: `stop(12.5)` leaves 2.5 s of it. At 12.6 the client says that it
# had played 2.3 s: `cut(item, 2300)` leaves these, from 10.0 to 12.3. `take(9.6)`, three seconds
# before 12.6, has written up to 9.6 meanwhile, so nothing had to be taken back.


@dataclass(slots=True)
class _Item:
    """Sound of an item that a client was sent, to be played from a place on."""

    item_id: str
    start: int
    offset: int = 0  # samples of the item before this stretch of it
    pieces: list[_Mono] = field(default_factory=list)
    length: int = 0
    heard: int | None = None  # samples, once it was interrupted

    @property
    def end(self) -> int:
        """Return where it stops being heard."""
        return self.start + (self.length if self.heard is None else min(self.heard, self.length))


class Tracks:
    """Hold what is not final yet.

    Args:
        rate_hz: of all sound.
        start_s: where both tracks begin, on the session's clock.
    """

    def __init__(self, rate_hz: int, start_s: float) -> None:
        self._rate_hz = rate_hz
        self._start_s = start_s
        self._written = 0  # samples that are final
        self._users: deque[tuple[int, _Mono]] = deque()
        self._users_end: int | None = None
        self._placed: deque[tuple[int, _Mono]] = deque()  # sound whose time is known
        self._items: deque[_Item] = deque()  # sound that a client plays

    def place(self, time_s: float) -> int:
        """Return which sample belongs to a time."""
        return round((time_s - self._start_s) * self._rate_hz)

    def hear(self, pcm: Pcm, now_s: float) -> None:
        """Add sound of the user: float32 [samples], the last of which has just arrived."""
        start, end = self.place(now_s) - len(pcm), self._users_end
        if end is not None and start - end <= _JITTER_S * self._rate_hz:
            start = end
        start = max(start, self._written)
        self._users.append((start, _to_int16(pcm)))
        self._users_end = start + len(pcm)

    def sound(self, pcm: Pcm, at_s: float) -> None:
        """Add sound of the assistant: float32 [samples].

        It is played from `at_s` on, or after what is being played then: a telephone is sent a
        second at once.
        """
        start, end = self.place(at_s), self._placed_end
        if end is not None and end > start - _FOLLOWS_S * self._rate_hz:
            start = end
        self._placed.append((start, _to_int16(pcm)))

    def hush(self, now_s: float) -> None:
        """Note that of the sound that was added nothing more is played."""
        now, end = self.place(now_s), self._placed_end
        while self._placed and self._placed[-1][0] >= now:
            self._placed.pop()
        if self._placed and end is not None and end > now:
            start, pcm = self._placed[-1]
            self._placed[-1] = start, pcm[: now - start]

    @property
    def _placed_end(self) -> int | None:
        return self._placed[-1][0] + len(self._placed[-1][1]) if self._placed else None

    def play(self, item_id: str, pcm: Pcm, now_s: float) -> None:
        """Add sound that a client gets now, and plays after what it has: float32 [samples]."""
        last = self._items[-1] if self._items else None
        if last is None or last.item_id != item_id or last.heard is not None:
            start = max(self.place(now_s), last.end if last is not None else 0)
            last = _Item(item_id, start)
            self._items.append(last)
        elif last.end < self.place(now_s):
            # The client ran dry: what comes now is another stretch of the same item.
            last = _Item(item_id, self.place(now_s), last.offset + last.length)
            self._items.append(last)
        last.pieces.append(_to_int16(pcm))
        last.length += len(pcm)

    def stop(self, now_s: float) -> None:
        """Note that the client plays no more."""
        now = self.place(now_s)
        for item in self._items:
            if item.heard is None and item.end > now:
                item.heard = max(0, now - item.start)

    def cut(self, item_id: str, heard_ms: int) -> None:
        """Note how much of an item the client has played, as it says itself."""
        heard = heard_ms * self._rate_hz // 1000
        for item in self._items:
            if item.item_id == item_id:
                item.heard = min(max(0, heard - item.offset), item.length)

    def take(self, until_s: float) -> Iterator[tuple[int, Stereo]]:
        """Yield what is final up to a time: where it begins, and at most ten seconds of sound.

        Stretches of silence are left out.
        """
        until = self.place(until_s)
        step = _BLOCK_S * self._rate_hz
        while self._written < until:
            end = min(until, self._written + step)
            block = self._block(self._written, end)
            if block is not None:
                yield self._written, block
            self._written = end
            self._forget()

    def _block(self, start: int, end: int) -> Stereo | None:
        heard = [*_overlapping(self._users, start, end)]
        said = [*_overlapping(self._placed, start, end)]
        for item in self._items:
            place = item.start
            for piece in item.pieces:
                kept = piece[: max(0, item.end - place)]
                said += _overlapping(((place, kept),), start, end)
                place += len(piece)
        if not heard and not said:
            return None
        block: Stereo = np.zeros((end - start, 2), dtype=np.int16)
        for channel, pieces in enumerate((heard, said)):
            for place, samples in pieces:
                first, last = max(place, start), min(place + len(samples), end)
                block[first - start : last - start, channel] = samples[first - place : last - place]
        return block

    def _forget(self) -> None:
        for track in (self._users, self._placed):
            while track and track[0][0] + len(track[0][1]) <= self._written:
                track.popleft()
        # The last one says where the next begins.
        while (
            len(self._items) > 1 and self._items[0].start + self._items[0].length <= self._written
        ):
            self._items.popleft()


def _overlapping(
    pieces: deque[tuple[int, _Mono]] | tuple[tuple[int, _Mono], ...], start: int, end: int
) -> Iterator[tuple[int, _Mono]]:
    for place, samples in pieces:
        if len(samples) and place < end and place + len(samples) > start:
            yield place, samples


def _to_int16(pcm: Pcm) -> _Mono:
    return np.rint(np.clip(pcm, -1, 1) * _FULL_SCALE).astype(np.int16)
