"""Speak faster or slower without a higher or lower voice, as a stream.

Waveform similarity overlap-add: the output is put together from short pieces of the input, each
taken about where the changed speed says, and exactly where it continues the piece before it best.
Whole periods of a voice are repeated or left out that way, and its pitch stays what it was.

Source: W. Verhelst and M. Roelands, "An overlap-add technique based on waveform similarity (WSOLA)
for high quality time-scale modification of speech", ICASSP 1993.
"""

import math

import numpy as np
import numpy.typing as npt

# The API ends at 1.5; more is an extension, which no client notices that does not ask for it.
MIN_SPEED, MAX_SPEED = 0.25, 4.0

_HOP_MS = 15  # half a piece: what two of them share, at least one period of a low voice
_SEARCH_MS = 8  # a piece is looked for this far to either side, one period of 62 Hz in all

Samples = npt.NDArray[np.float32]


class SpeedChanger:
    """Change the speed of a stream of mono samples.

    What comes out of `n` samples, `finish` included, are exactly `round(n / speed)`; until then
    never more than that of what was fed, and less by 38 ms of input and 15 ms of output at most.
    At speed 1 everything passes through untouched and at once. How a stream is cut does not
    matter.

    Args:
        rate_hz: of the samples, in and out.
        speed: 2.0 is twice as fast; from `MIN_SPEED` to `MAX_SPEED`.
    """

    def __init__(self, rate_hz: int, speed: float) -> None:
        assert MIN_SPEED <= speed <= MAX_SPEED, f"speed {speed} is out of range"
        self._speed = speed
        self._hop = rate_hz * _HOP_MS // 1000
        self._reach = rate_hz * _SEARCH_MS // 1000
        # It rises as the other one falls, and the two add up to one: the loudness stays.
        self._rising: Samples = ((np.arange(self._hop) + 0.5) / self._hop).astype(np.float32)
        self._restart()

    def _restart(self) -> None:
        self._kept: Samples = np.zeros(0, dtype=np.float32)
        self._kept_start = 0  # input index of the first kept sample
        self._num_pieces = 0
        # What follows the last piece in the input, and is to be crossfaded into the next one.
        self._tail: Samples = np.zeros(0, dtype=np.float32)

    def feed(self, pcm: Samples) -> Samples:
        """Return what `pcm`, float32 [samples], completes: float32 [samples]."""
        if self._speed == 1.0:
            return pcm
        self._kept = np.concatenate((self._kept, pcm))
        known = self._kept_start + len(self._kept)
        pieces = [np.zeros(0, dtype=np.float32)]
        while known >= self._needed():
            pieces.append(self._next_piece())
        return np.concatenate(pieces)

    def finish(self) -> Samples:
        """Return the samples held back, float32 [samples], and start a new stream."""
        if self._speed == 1.0:
            return np.zeros(0, dtype=np.float32)
        num_fed = self._kept_start + len(self._kept)
        num_missing = round(num_fed / self._speed) - self._num_pieces * self._hop
        num_pieces = math.ceil(num_missing / self._hop)
        # The last pieces reach over the end of the input, into silence.
        end = self._place(self._num_pieces + num_pieces) + self._span
        silence = np.zeros(max(0, end - num_fed), dtype=np.float32)
        self._kept = np.concatenate((self._kept, silence))
        pieces = [np.zeros(0, dtype=np.float32)]
        pieces += [self._next_piece() for _ in range(num_pieces)]
        self._restart()
        return np.concatenate(pieces)[:num_missing]

    @property
    def _span(self) -> int:
        """Return how far beyond its place a piece may read."""
        return self._reach + 2 * self._hop

    def _place(self, piece: int) -> int:
        """Return the input sample at which a piece would begin if all were alike."""
        # For example, at 24 kHz a hop is 360 samples. At twice the speed piece n is taken near 720
        # n, so every other hop is left out; at half the speed near 180 n, so each is heard about
        # twice.
        return round(piece * self._hop * self._speed)

    def _needed(self) -> int:
        """Return how many input samples the next piece takes."""
        return max(
            self._place(self._num_pieces) + self._span,
            # Fast speech: what comes out never runs ahead of what went in.
            math.ceil((self._num_pieces + 1) * self._hop * self._speed),
        )

    def _next_piece(self) -> Samples:
        """Return the next hop of output."""
        hop = self._hop
        start = self._chosen() - self._kept_start
        piece = self._kept[start : start + hop]
        if self._num_pieces:
            piece = piece * self._rising + self._tail * self._rising[::-1]
        self._tail = self._kept[start + hop : start + 2 * hop]
        self._num_pieces += 1
        spent = max(0, self._place(self._num_pieces) - self._reach - self._kept_start)
        self._kept = self._kept[spent:]
        self._kept_start += spent
        return piece

    def _chosen(self) -> int:
        """Return the input sample, near its place, from which the next piece continues best."""
        place = self._place(self._num_pieces)
        if not self._num_pieces:
            return place
        first = max(self._kept_start, place - self._reach)
        end = place + self._reach + self._hop
        region = self._kept[first - self._kept_start : end - self._kept_start]
        likeness = np.correlate(region, self._tail, "valid")
        energy = np.convolve(region * region, np.ones(self._hop, dtype=np.float32), "valid")
        # The constant, the energy of faint noise, keeps silence from being matched by its grain.
        score = likeness / np.sqrt(energy + 1e-6 * self._hop)
        # Of equals, as in silence, the one at its place.
        best = int(score.argmax())
        return place if score[place - first] >= score[best] else first + best
