"""Know what a client's loudspeaker played while its microphone recorded.

Echo is cancelled by comparing the two. Played sound has the time when it was sent, recorded sound
the time when it arrived. Between the two lie the network, the client's buffers and the air: some
tens to hundreds of milliseconds, which the canceller finds by itself. It only needs that this delay
stays the same, and that sound is played before it is heard.

    played     ...|aaaa|bbbb|cccc|dddd|...       by when it was sent
    recorded        ...|....|aaaa|bbbb|...       by when it arrived
"""

from bisect import bisect_right
from collections import deque
from itertools import islice

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]

# Sound that arrives earlier than any before, by more than that, moves the reading back at once: its
# echo may be of something that was just played.
_EARLY_S = 0.02
# What gains so much on real time, and more than a hundredth of it, is no microphone beside a
# loudspeaker, but a file.
_NOT_LIVE_S = 0.3
_FORGIVEN = 0.01
# Nothing arrived for so long: what arrives now has no place after what came before.
_PAUSE_S = 1.0
# Clocks of clients and of ours differ, by some 50 ppm, 20 ms in seven minutes. So often it is
# looked whether all that arrived meanwhile was late.
_WATCH_S = 5.0
_LATE_S = 0.02
# Of what was played so much is kept, and of what will be.
_PAST_S = 2.0
_AHEAD_S = 30.0


class FarEnd:
    """Hold what is being played, on one clock, in seconds.

    Args:
        rate_hz: of the sound.
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._played: deque[tuple[int, Samples]] = deque()  # each with its place, in samples
        self._read_s: float | None = None  # up to where it was taken
        self._gained_s = 0.0  # by what arrived, on real time
        self._watched_s = 0.0
        self._least_late_s = 0.0

    def play(self, pcm: Samples, now_s: float) -> None:
        """Note that sound is played from now on, or after what is being played.

        Args:
            pcm: float32 [samples].
            now_s: a frame of real time may come up to 10 ms before it.
        """
        now = self._place(now_s)
        end = self._end
        # Frames that are paced by a clock follow each other although the clock is not exact.
        # For example, a reply comes in pieces of 80 ms faster than it is heard. The first begins
        # now, and each further one where the one before ends: that is what a player does with them.
        start = end if end is not None and end > now - self._rate_hz // 100 else now
        if start > now + _AHEAD_S * self._rate_hz:
            return
        self._played.append((start, pcm))
        while self._played[0][0] + len(self._played[0][1]) < now - _PAST_S * self._rate_hz:
            self._played.popleft()

    def stop(self, now_s: float) -> None:
        """Note that nothing more is played."""
        now = self._place(now_s)
        while self._played and self._played[-1][0] >= now:
            self._played.pop()
        if self._played and self._end is not None and self._end > now:
            start, pcm = self._played[-1]
            self._played[-1] = start, pcm[: now - start]

    def take(self, seconds: float, now_s: float) -> Samples:
        """Return what was played while something was recorded, float32 [samples].

        Args:
            seconds: its length.
            now_s: when it arrived, and had thus been recorded.
        """
        if self._read_s is None or now_s - self._read_s - seconds > _PAUSE_S:
            self._read_s = now_s - seconds
            self._gained_s = 0.0
            self._watch(now_s)
        start_s = self._read_s
        # For example, 20 ms arrive at 10.000 s, so they were recorded from 9.980 s on. The next 20
        # ms are read from 10.000 s, whenever they arrive: at 10.035 s they are 15 ms late, and
        # nothing moves. If they arrive at 9.990 s they are 30 ms early, and the reading moves back
        # by that.
        early_s = start_s + seconds - now_s
        self._gained_s = max(0.0, self._gained_s - _FORGIVEN * seconds)
        if early_s > _EARLY_S:
            self._gained_s += early_s
            start_s -= early_s
            self._watch(now_s)
        self._least_late_s = min(self._least_late_s, -early_s)
        if now_s - self._watched_s > _WATCH_S:
            # Jitter makes some packets late. If even the most punctual one of five seconds was, it
            # is the clock.
            if self._least_late_s > _LATE_S:
                start_s += self._least_late_s
            self._watch(now_s)
        self._read_s = start_s + seconds
        start, end = self._place(start_s), self._place(self._read_s)
        # Nobody can record more than a second in a second. Such a client appends a file, in which
        # there is no echo of what we play.
        if self._gained_s > _NOT_LIVE_S:
            return np.zeros(end - start, dtype=np.float32)
        return self._between(start, end)

    def _watch(self, now_s: float) -> None:
        self._watched_s = now_s
        self._least_late_s = float("inf")

    @property
    def _end(self) -> int | None:
        return self._played[-1][0] + len(self._played[-1][1]) if self._played else None

    def _place(self, time_s: float) -> int:
        return round(time_s * self._rate_hz)

    def _between(self, start: int, end: int) -> Samples:
        # Of a reply that is half a minute ahead there are some 400 pieces, and one or two are asked
        # for.
        begin = bisect_right(self._played, start, key=_end_of)
        taken: Samples | None = None
        for place, pcm in islice(self._played, begin, None):
            if place >= end:
                break
            if place <= start and end <= place + len(pcm):
                return pcm[start - place : end - place]
            if taken is None:
                taken = np.zeros(end - start, dtype=np.float32)
            first, last = max(place, start), min(place + len(pcm), end)
            taken[first - start : last - start] = pcm[first - place : last - place]
        return np.zeros(end - start, dtype=np.float32) if taken is None else taken


def _end_of(piece: tuple[int, Samples]) -> int:
    place, pcm = piece
    return place + len(pcm)
