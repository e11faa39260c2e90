"""Find out whether a loudspeaker is heard in a microphone at all.

Most clients cancel the echo themselves, or have none. A canceller that finds none takes the user's
voice for it: AEC3 makes the first second of somebody who talks over a reply up to 30 dB quieter.
So it is let in only where there is something to cancel, and not before that is known.

An echo rises and falls as what was played did, in every band of frequencies, some time before. How
much two spectrograms of 0.8 s are alike, at the delay where they are most, tells. Measured at
delays of 10 to 450 ms and levels of 0 to -20 dB: 98 % of windows had 0.83 or more with the echo
alone; with a user's voice and no echo 98 % had 0.67 or less, and noise 0.11.
"""

import numpy as np
import numpy.typing as npt

from server.audio.rows import rows_of

Samples = npt.NDArray[np.float32]

_FRAME_MS = 20
_WINDOW_FRAMES = 40
_MAX_DELAY_FRAMES = 25
_STEP_FRAMES = 5  # from one look to the next
# As many as a look at every delay needs.
_QUIET_FRAMES = _WINDOW_FRAMES + _MAX_DELAY_FRAMES
# Where a voice has its power, and small loudspeakers play at all.
_BANDS_HZ = np.geomspace(200, 6_000, 17)
_FLOOR = 1e-6  # -60 dB: what is quieter disturbs nobody
_QUIET = 1e-3  # the same of a sample
_PLAYED = 1e-5  # -50 dB: a frame of the played sound that is not silent
# A window with fewer such frames is not judged.
_MIN_PLAYED_FRAMES = 15
_ALIKE, _UNLIKE = 0.75, 0.5
# Looks in a row that it takes to say so: at first, and where the other was true before. A user who
# talks over a reply hides its echo for a while, and two voices are alike now and then.
_FOUND_AT_FIRST, _FOUND_AFTERWARDS = 2, 3
_NONE_AT_FIRST, _NONE_AFTERWARDS = 2, 30
# After so many looks that say neither there is none: others wait for the answer.
_MAX_LOOKS_AT_FIRST = 10
# Where there is none, one look in four seconds of sound is enough: who takes off a headset is heard
# with an echo for so long, and everybody else costs a quarter.
_REST_S = 4


class EchoPath:
    """Follow one client's echo.

    Args:
        rate_hz: of both ends.
    """

    def __init__(self, rate_hz: int) -> None:
        self._frame = rate_hz * _FRAME_MS // 1000
        self._rest = rate_hz * _REST_S
        self._num_resting = 0  # samples until it looks again
        spectrum_hz = np.fft.rfftfreq(self._frame, 1 / rate_hz)
        edges = np.unique(np.searchsorted(spectrum_hz, _BANDS_HZ))
        self._edges = edges[edges < len(spectrum_hz)]
        self._taper: Samples = np.hanning(self._frame).astype(np.float32)
        # Of a frame's power spectrum to that of its samples.
        self._scale = np.float32(2 / (self._frame * float(np.sum(self._taper**2))))
        self.restart()
        self._num_unlike = self._num_alike = 0  # looks in a row
        self._num_looks = 0  # of a whole window at every delay
        self._is_found: bool | None = None

    @property
    def is_found(self) -> bool | None:
        """Say whether there is an echo; None as long as nobody knows."""
        return self._is_found

    def restart(self) -> None:
        """Begin with sound that does not follow the last; what is known of the echo stays."""
        self._near: list[Samples] = []  # of both ends, since the last look
        self._far: list[Samples] = []
        self._num_new = 0  # samples of them
        self._num_quiet = 0  # samples that were played, and of which nothing was recorded
        self._has_recorded = False  # anything that could be heard
        num_bands = len(self._edges) - 1
        # 40 frames of what is recorded are held against up to 65 of what was played: 26 delays of 0
        # to 500 ms.
        self._far_bands: Samples = np.zeros((0, num_bands), np.float32)
        self._near_bands: Samples = np.zeros((0, num_bands), np.float32)

    def feed(self, near: Samples, far: Samples) -> None:
        """Take both ends while something is played, float32 [samples] of the same time."""
        if self._num_resting > 0:
            self._num_resting -= len(near)
            return
        if self._is_off(near, far):
            self._rest_without()
            return
        self._near.append(near)
        self._far.append(far)
        self._num_new += len(near)
        # Every 100 ms, and not all at a look: calls that begin together look together, and one
        # event loop serves them.
        if self._num_new < _STEP_FRAMES * self._frame:
            return
        near, far = np.concatenate(self._near), np.concatenate(self._far)
        used = len(near) - len(near) % self._frame
        self._near, self._far = [near[used:].copy()], [far[used:].copy()]
        self._num_new -= used
        near_bands, far_bands = np.split(self._bands(np.concatenate((near[:used], far[:used]))), 2)
        self._near_bands = _joined(self._near_bands, near_bands, _WINDOW_FRAMES)
        self._far_bands = _joined(self._far_bands, far_bands, _WINDOW_FRAMES + _MAX_DELAY_FRAMES)
        if len(self._far_bands) >= self._frames_to_look():
            self._look()

    def _is_off(self, near: Samples, far: Samples) -> bool:
        """Say whether so much was played to a microphone that is off that no look is needed.

        Where there was an echo, somebody is silent for a moment, and it is back after it.
        """
        if np.max(np.abs(near)) > _QUIET:
            self._has_recorded = True
            self._num_quiet = 0
        elif np.max(np.abs(far)) > _QUIET:
            self._num_quiet += len(near)
        return not self._is_found and self._num_quiet >= _QUIET_FRAMES * self._frame

    def _frames_to_look(self) -> int:
        """Return how many frames of what was played the next look needs."""
        # Where there was none, or nothing was recorded yet, the likeliest answer is that there is
        # none, which needs a whole window at every delay: so it begins with that.
        is_unlikely = self._is_found is False or not self._has_recorded
        return _WINDOW_FRAMES + (_MAX_DELAY_FRAMES if is_unlikely else 0)

    def _look(self) -> None:
        # Only what was recorded since the beginning counts. Somebody may begin to speak when a
        # reply begins, and would be like it for that alone. So an echo of 100 ms is seen after 900
        # ms at the earliest, and that there is none after 1.3 s.
        num_far = len(self._far_bands)
        # A window with less than 300 ms of sound in it says nothing: everything is like silence.
        power = np.sum(10 ** self._far_bands[-_WINDOW_FRAMES:], axis=1)
        if np.count_nonzero(power > _PLAYED) < _MIN_PLAYED_FRAMES:
            return
        likeness = self._likeness()
        is_whole = num_far == _WINDOW_FRAMES + _MAX_DELAY_FRAMES
        self._num_alike = self._num_alike + 1 if likeness >= _ALIKE else 0
        if self._num_alike or not is_whole:
            self._num_unlike = 0
        # Hysteresis: between the two neither count grows. A user who talks over a reply makes its
        # echo hard to see, and that alone must not let go of it.
        elif likeness < _UNLIKE:
            self._num_unlike += 1
        self._num_looks += is_whole
        is_unknown = self._is_found is None
        if self._num_alike >= (_FOUND_AT_FIRST if is_unknown else _FOUND_AFTERWARDS):
            self._is_found = True
        elif self._num_unlike >= (_NONE_AFTERWARDS if self._is_found else _NONE_AT_FIRST) or (
            is_unknown and self._num_looks >= _MAX_LOOKS_AT_FIRST
        ):
            self._rest_without()

    def _rest_without(self) -> None:
        """Take it that there is no echo, and look again later."""
        self._is_found = False
        self._num_resting = self._rest
        self._num_alike = self._num_unlike = 0
        self.restart()

    def _likeness(self) -> float:
        """Return the correlation of both ends at the delay where it is highest, 0 to 1."""
        # Without its mean over time a band shows how it rises and falls, not how loud it is. So
        # neither the volume of the loudspeaker nor the colour of the room matters.
        # In 64 bits: below, numbers are subtracted that are close to each other.
        near = self._near_bands - self._near_bands.mean(axis=0, dtype=np.float64)
        far = self._far_bands.astype(np.float64)
        # A row for each delay: 40 frames are one piece of memory. The far end keeps its mean there,
        # which adds nothing, since the near end has none.
        num_frames, num_bands = far.shape
        rows = rows_of(
            far.reshape(-1),
            0,
            num_frames - _WINDOW_FRAMES + 1,
            num_bands,
            num_bands * _WINDOW_FRAMES,
        )
        likeness = rows @ near.reshape(-1)
        # Its power without the mean: the sum of squares less the square of the sum.
        squares = _sums(np.sum(far**2, axis=1))
        far_power = squares - np.sum(_sums(far) ** 2, axis=1) / _WINDOW_FRAMES
        power = far_power * np.sum(near**2)
        return float(np.max(likeness / np.sqrt(power + 1e-6)))

    def _bands(self, pcm: Samples) -> Samples:
        """Return how loud bands of frequencies are: float32 [frames, bands], in powers of ten."""
        frames = pcm.reshape(-1, self._frame) * self._taper
        power = np.abs(np.fft.rfft(frames, axis=1)) ** 2 * self._scale
        bands = np.add.reduceat(power, self._edges, axis=1)[:, :-1]
        logs: Samples = np.log10(bands + _FLOOR / bands.shape[1]).astype(np.float32)
        return logs


def _sums(frames: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the sum over the window at every delay: [delays, …] for [frames, …]."""
    # As differences of running sums.
    ends = np.cumsum(frames, axis=0)
    sums = ends[_WINDOW_FRAMES - 1 :].copy()
    sums[1:] -= ends[:-_WINDOW_FRAMES]
    return sums


def _joined(before: Samples, new: Samples, most: int) -> Samples:
    return np.concatenate((before, new))[-most:]
