"""Resample a stream without seams between its chunks, and with little lateness.

A windowed-sinc polyphase filter. A general library resampler works in blocks and holds back 12 to
40 ms, and jitters by as much; this one holds back about 2 ms at 16 and 24 kHz, always the same.
Speech turns are timed in milliseconds here, so that matters more than the last decibel.

Source: the Kaiser window's length formula, as in Oppenheim and Schafer, "Discrete-Time Signal
Processing", section 7.5.3.
"""

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from kernels.arithmetic import ceil_div
from server.audio.rows import rows_of

Samples = npt.NDArray[np.float32]

_REJECTION_DB = 70.0  # below the noise of 16-bit speech over a microphone
_BLOCK = 32  # outputs that are made together, about
_MAX_COPIED_BLOCKS = 1_024  # a megabyte or two, however much audio comes at once
_TRANSITION = 0.125  # part of the lower rate's band that the filter needs to fall off


@lru_cache(maxsize=16)
def _phases(up: int, down: int) -> Samples:
    """Return the filter as float32 [phase, taps]; taps run forward in time around their centre."""
    # In units of the rate `up × from_hz`, at which every input and output sample has its place.
    band = 0.5 / max(up, down)
    # Kaiser's formula: the sharper the filter and the quieter what it stops, the longer it is. Half
    # of it is how late the output is.
    transition = _TRANSITION * band
    half = math.ceil((_REJECTION_DB - 7.95) / (14.36 * transition) / 2)
    reach = math.ceil(half / up)  # input samples on either side
    beta = 0.1102 * (_REJECTION_DB - 8.7)
    cutoff = band - transition / 2

    # Offset of input sample `q + j` from an output at phase `p` after input sample `q`.
    offset = np.arange(-reach, reach + 1)[None, :] * up - np.arange(up)[:, None]  # [P, taps]
    shape = np.sqrt(np.clip(1.0 - (offset / (half + 1)) ** 2, 0.0, None))
    window = np.where(np.abs(offset) <= half, np.i0(beta * shape) / np.i0(beta), 0.0)
    taps = 2 * cutoff * np.sinc(2 * cutoff * offset) * window
    # A constant stays the same constant at every phase.
    phases: Samples = (taps / taps.sum(axis=1, keepdims=True)).astype(np.float32)
    return phases


@lru_cache(maxsize=16)
def _block(up: int, down: int) -> Samples:
    """Return the filter of a block of outputs, float32 [inputs, outputs], from phase 0 on.

    A block is a multiple of `up` outputs, so all blocks have the same filter. Each input of a block
    is copied once and multiplied for all its outputs, where output by output each is copied as
    often as there are taps. From 24 to 16 kHz, 32 outputs look at 151 inputs in place of 32 times
    105. Many of the products are with 0, and it still takes half of the time for 20 ms, and a third
    for a second.
    """
    phases = _phases(up, down)
    taps = phases.shape[1]
    outputs = up * max(1, round(_BLOCK / up))
    block = np.zeros(((outputs - 1) * down // up + taps, outputs), dtype=np.float32)
    for output in range(outputs):
        # Output 0 lies at input 0, output 1 at 1.5, output 2 at 3, output 3 at 4.5: two phases,
        # which take turns.
        place, phase = divmod(output * down, up)
        block[place : place + taps, output] = phases[phase]
    return block


class StreamResampler:
    """Convert a stream of mono samples from one rate to another.

    Output sample `i` belongs to the time of input sample `i * from_hz / to_hz`: there is no delay,
    only lateness, of `lateness_samples` of the input.
    """

    def __init__(self, from_hz: int, to_hz: int) -> None:
        common = math.gcd(from_hz, to_hz)
        self._up, self._down = to_hz // common, from_hz // common
        self._filter = _block(self._up, self._down)  # of a block: [inputs, outputs]
        self._step = self._filter.shape[1] * self._down // self._up  # inputs from block to block
        reach = _phases(self._up, self._down).shape[1] // 2
        self.lateness_samples = 0 if self._up == self._down else reach
        self._restart()

    def _restart(self) -> None:
        # Silence before the first sample, so that the first output has its whole window.
        self._kept: Samples = np.zeros(self.lateness_samples, dtype=np.float32)
        self._kept_start = -self.lateness_samples  # input index of the first kept sample
        self._next_output = 0

    def feed(self, pcm: Samples) -> Samples:
        """Return what `pcm`, float32 [samples], completes: float32 [samples]."""
        if self._up == self._down:
            return pcm
        self._kept = np.concatenate((self._kept, pcm))
        known = self._kept_start + len(self._kept)  # input samples so far
        # Output `n` reads up to input `n * down // up + lateness`.
        return self._outputs_before(
            ceil_div((known - self.lateness_samples) * self._up, self._down)
        )

    def finish(self) -> Samples:
        """Return the samples held back, float32 [samples], and start a new stream."""
        if self._up == self._down:
            return np.zeros(0, dtype=np.float32)
        total = self._kept_start + len(self._kept)
        silence = np.zeros(self.lateness_samples + 1, dtype=np.float32)
        self._kept = np.concatenate((self._kept, silence))
        rest = self._outputs_before(ceil_div(total * self._up, self._down))
        self._restart()
        return rest

    def _outputs_before(self, end: int) -> Samples:
        """Return the outputs from the next one up to `end`, exclusive, and drop spent input."""
        start = self._next_output
        if end <= start:
            return np.zeros(0, dtype=np.float32)
        # Whole blocks are made, and what of them came out before or cannot be known yet is dropped.
        # For example, outputs 286 to 605 are asked for: blocks 8 to 18 of 32, which are outputs 256
        # to 607. What is not there yet counts as silence; it is multiplied with 0 in all outputs
        # that are kept.
        width, length = self._filter.shape
        first, count = start // length, ceil_div(end, length) - start // length
        kept = self._kept
        missing = (count - 1) * self._step + width - len(kept)
        if missing > 0:
            kept = np.concatenate((kept, np.zeros(missing, dtype=np.float32)))
        made = np.empty((count, length), dtype=np.float32)
        for at in range(0, count, _MAX_COPIED_BLOCKS):
            part = made[at : at + _MAX_COPIED_BLOCKS]
            rows = rows_of(kept, at * self._step, len(part), self._step, width)
            # Overlapping rows are multiplied several times as fast once they are copied apart.
            np.matmul(np.ascontiguousarray(rows), self._filter, out=part)
        self._next_output = end
        spent = end // length * self._step - self.lateness_samples - self._kept_start
        self._kept = self._kept[spent:].copy()  # and not all that was fed
        self._kept_start += spent
        return made.reshape(-1)[start - first * length : end - first * length]
