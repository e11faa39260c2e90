"""Take echo and noise out of what a client's microphone recorded, as a stream.

The work is WebRTC's audio processing module's (package `pywebrtc-audio`): AEC3 for echo, its noise
suppressor for noise. It takes whole frames of 10 ms and returns them some milliseconds late. Here
that lateness is taken out again: what comes out keeps its place in time, and only what is not
finished yet is held back.
"""

import importlib
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from server.audio.echo_path import EchoPath
from server.audio.vad import Echo
from server.errors import ConfigError

Samples = npt.NDArray[np.float32]
NoiseKind: TypeAlias = Literal["near_field", "far_field"]

# WebRTC's audio processing takes 10 ms at a time: 160 samples at 16 kHz, 240 at 24 kHz.
_FRAMES_PER_S = 100
_FADE_MS = 5  # from the raw sound to the cleaned, and back
# AEC3 finds echoes of up to 500 ms, and a room's tail follows.
_LONGEST_ECHO_MS = 500
_ECHO_TAIL_MS = 1_000
# Sound that is heard again, so that a processor begins with what came before.
_RUN_UP_FRAMES = 4
# And so much of it, at most, where what is played has gone on for a while: it takes 0.9 s and more
# to find an echo, and AEC3 needs a second to learn it. 2 s take it 15 ms.
_LONGEST_RUN_UP_S = 2
_SILENCE = 1e-4  # -80 dBFS; no echo of less is heard
_LAST_SAMPLES = 64
# A microphone at the mouth has little noise, and speech is to stay as it is. One across the room
# has more of it. Levels 1 and 3 of the module: up to 12 and 21 dB less noise.
_NOISE_LEVELS: dict[NoiseKind, int] = {"near_field": 1, "far_field": 3}


def _processor(rate_hz: int, **parts: Any) -> Any:
    """Make a processor of the library's.

    Raises:
        ConfigError: the library is not installed.
    """
    try:
        library = importlib.import_module("pywebrtc_audio")
    except ImportError as error:
        raise ConfigError(
            "noise reduction and echo cancellation need the pywebrtc-audio package (0.2 or newer), "
            f"which cannot be loaded: {error}"
        ) from error
    return library.AudioProcessor(rate_hz, **parts)


def check_library(*rates_hz: int) -> None:
    """Load the library, and find out now what takes a moment.

    Args:
        rates_hz: at which echoes will be cancelled.

    Raises:
        ConfigError: it is not installed.
    """
    _processor(16_000)
    for rate_hz in rates_hz:
        _lateness(rate_hz, is_echo=True)


@lru_cache(maxsize=32)
def _lateness(rate_hz: int, *, is_echo: bool) -> int:
    """Return how many samples late a processor's output is, by listening to it.

    At 16 kHz that is 124 for echo (7.75 ms) and 96 for noise (6 ms); it differs with the rate, and
    may with the library's version.
    """
    processor = _processor(rate_hz, **_parts(is_echo=is_echo, noise_level=0))
    step = rate_hz // _FRAMES_PER_S
    # A burst of noise in every 160 ms: steady noise would be suppressed.
    times = np.arange(50 * step)
    heard = np.random.default_rng(0).standard_normal(len(times)).astype(np.float32)
    heard *= np.float32(0.05) * (times % (16 * step) < 4 * step)
    cleaned = processor.process(heard, np.zeros_like(heard))
    # Cross-correlation: the output looks most like the input at the delay that the module adds.
    # Measured at start and not written down, so that another version of the library cannot shift
    # the sound.
    longest = 4 * step
    likeness = [
        float(np.dot(cleaned[late:], heard[: len(heard) - late])) for late in range(longest)
    ]
    return int(np.argmax(likeness))


def _parts(*, is_echo: bool, noise_level: int) -> dict[str, Any]:
    if is_echo:
        return {"echo_cancellation": True}
    return {"noise_suppression": True, "ns_level": noise_level}


class _InPlace:
    """Run a processor of whole, late frames so that its output keeps its place in time.

    Args:
        rate_hz: of the stream.
        lateness: of the processor, in samples.
        process: returns float32 [samples] for float32 (near [samples], far [samples]).
    """

    def __init__(
        self, rate_hz: int, lateness: int, process: Callable[[Samples, Samples], Samples]
    ) -> None:
        self._step = rate_hz // _FRAMES_PER_S
        self._lateness = lateness
        self._process = process
        self.begin(_no_samples(), _no_samples())

    def begin(self, near: Samples, far: Samples) -> None:
        """Begin after a place in the stream.

        Args:
            near: what came before it, which is heard again and not returned.
            far: the same of the far end.
        """
        self._raw = _no_samples()  # fed, and not returned yet
        whole = len(near) - len(near) % self._step
        self._near, self._far = near[whole:], far[whole:]  # of a frame that is not whole yet
        # Of what the processor returns, so much lies before the place.
        # A worked example at 16 kHz, where the canceller is 124 samples late. 200 samples are fed:
        # one frame of 160 is whole, and 40 wait. Of the 160 that come out the first 124 belong to
        # before the place and are dropped; 36 are returned, which are the first 36 that were fed,
        # cleaned.
        self._before = self._lateness + len(self._near)
        if whole:
            self._process(near[:whole], far[:whole])

    def feed(self, near: Samples, far: Samples) -> tuple[Samples, Samples]:
        """Return what is finished: cleaned, and raw at the same place, float32 [samples] each."""
        self._raw = np.concatenate((self._raw, near))
        self._near = np.concatenate((self._near, near))
        self._far = np.concatenate((self._far, far))
        whole = len(self._near) - len(self._near) % self._step
        if not whole:
            return _no_samples(), _no_samples()
        cleaned = self._process(self._near[:whole], self._far[:whole])
        self._near, self._far = self._near[whole:].copy(), self._far[whole:].copy()
        dropped = min(self._before, len(cleaned))
        self._before -= dropped
        cleaned = cleaned[dropped:]
        raw = self._raw[: len(cleaned)]
        self._raw = self._raw[len(cleaned) :].copy()
        return cleaned, raw

    def rest(self) -> Samples:
        """Return what was fed and not returned, raw, and begin anew after it."""
        rest = self._raw
        self.begin(_no_samples(), _no_samples())
        return rest


class EchoCanceller:
    """Take out of a stream what a loudspeaker played into its microphone.

    While nothing is played, or nothing of it is heard, the stream passes untouched and at once.
    While an echo is taken out, and for a second after that, up to 18 ms of it are held back. When
    one is found, the canceller first hears what was played and recorded before: so it is good from
    the moment on that it is needed, and costs nothing where it is not.

    Args:
        rate_hz: of both ends.
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        # Made where an echo is found: most clients never need one.
        self._frames: _InPlace | None = None
        self._tail = rate_hz * _ECHO_TAIL_MS // 1000
        self._longest = rate_hz * _LONGEST_ECHO_MS // 1000
        self._step = rate_hz // _FRAMES_PER_S
        self._longest_run_up = rate_hz * _LONGEST_RUN_UP_S
        self._fading = _Fade(rate_hz)
        self._path = EchoPath(rate_hz)
        self._is_played = False
        self._is_removing = False
        self._num_silent = self._tail  # far samples since the last that could be heard
        self._before: deque[tuple[Samples, Samples]] = deque()  # both ends, the newest last
        self._num_before = 0  # samples of them

    @property
    def state(self) -> Echo:
        """Say what of an echo may be in what `feed` returned last."""
        if self._is_removing:
            return Echo.REMOVED
        may_sound = self._num_silent < self._longest
        return Echo.UNKNOWN if may_sound and self._path.is_found is None else Echo.NONE

    def feed(self, near: Samples, far: Samples) -> Samples:
        """Return what is finished of the stream: float32 [samples].

        Args:
            near: what the microphone recorded: float32 [samples].
            far: what was played meanwhile, as long as `near`; it may be heard in `near` up to half
                a second later.
        """
        assert len(near) == len(far), "both ends have the same time"
        if not len(near):
            return near
        # After the last sound the room still rings, and what was played may be heard half a second
        # later. So the canceller stays for a second of silence.
        num_silent = _num_silent_at_the_end(far)
        self._num_silent = num_silent + (self._num_silent if num_silent == len(far) else 0)
        was_played, self._is_played = self._is_played, self._num_silent < self._tail
        if self._is_played and not was_played:
            self._path.restart()
        if self._is_played:
            self._path.feed(near, far)
        is_wanted = self._is_played and self._path.is_found is True
        if is_wanted and not self._is_removing:
            self._is_removing = True
            if self._frames is None:
                self._frames = self._new_frames()
            self._frames.begin(*self._run_up())
            self._fading.begin()
        heard = near
        if self._is_removing and self._frames is not None:
            heard = self._cleaned(self._frames, near, far, is_wanted=is_wanted)
        self._remember(near, far)
        return heard

    def finish(self) -> Samples:
        """Return what is held back: float32 [samples]."""
        self._is_removing = False
        return _no_samples() if self._frames is None else self._frames.rest()

    def _new_frames(self) -> _InPlace:
        processor = _processor(self._rate_hz, **_parts(is_echo=True, noise_level=0))
        lateness = _lateness(self._rate_hz, is_echo=True)
        return _InPlace(self._rate_hz, lateness, processor.process)

    def _cleaned(
        self, frames: _InPlace, near: Samples, far: Samples, *, is_wanted: bool
    ) -> Samples:
        cleaned, raw = frames.feed(near, far)
        heard = self._fading.into(cleaned, raw)
        if is_wanted:
            return heard
        heard = self._fading.out_of(heard, raw)
        return np.concatenate((heard, self.finish()))

    def _run_up(self) -> tuple[Samples, Samples]:
        """Return what came before, of both ends."""
        if not self._before:
            return _no_samples(), _no_samples()
        near, far = (np.concatenate(end) for end in zip(*self._before, strict=True))
        return near, far

    def _remember(self, near: Samples, far: Samples) -> None:
        # Once it is known that there is an echo, the canceller has learned it, and goes on.
        is_searching = self._is_played and not self._is_removing
        most = self._longest_run_up if is_searching else _RUN_UP_FRAMES * self._step
        if len(near) >= most:
            self._before.clear()
            self._num_before = 0
        self._before.append((near[-most:].copy(), far[-most:].copy()))
        self._num_before += min(len(near), most)
        # No more than that: of a user who spoke before the reply, the canceller would learn to take
        # voices away.
        while (over := self._num_before - most) > 0:
            first_near, first_far = self._before.popleft()
            self._num_before -= min(over, len(first_near))
            if over < len(first_near):
                self._before.appendleft((first_near[over:], first_far[over:]))


class NoiseReducer:
    """Take noise out of a stream; up to 16 ms of it are held back.

    Args:
        rate_hz: of the stream.
        kind: of microphone: "near_field" is one at the mouth, "far_field" one across the room.
        strength: 1.0 for all that the module does, 0.0 for nothing.
    """

    def __init__(self, rate_hz: int, kind: NoiseKind, strength: float) -> None:
        level = _NOISE_LEVELS[kind]
        processor = _processor(rate_hz, **_parts(is_echo=False, noise_level=level))
        self._frames = _InPlace(
            rate_hz, _lateness(rate_hz, is_echo=False), lambda near, _: _as_samples(processor, near)
        )
        self._strength = np.float32(strength)

    def feed(self, pcm: Samples) -> Samples:
        """Return what is finished of the stream: float32 [samples]."""
        cleaned, raw = self._frames.feed(pcm, pcm)
        # Both are at the same place in time, so a part of each adds up without an echo.
        return raw + self._strength * (cleaned - raw)

    def finish(self) -> Samples:
        """Return what is held back: float32 [samples]."""
        return self._frames.rest()


def _as_samples(processor: Any, near: Samples) -> Samples:
    cleaned: Samples = processor.process(near)
    return cleaned


class _Fade:
    """Lead from a raw stream to its cleaned version without a click, and back."""

    def __init__(self, rate_hz: int) -> None:
        num = rate_hz * _FADE_MS // 1000
        self._rising: Samples = ((np.arange(num) + 0.5) / num).astype(np.float32)
        self._num_faded = num

    def begin(self) -> None:
        """Begin with the raw stream."""
        self._num_faded = 0

    def into(self, cleaned: Samples, raw: Samples) -> Samples:
        """Return the next of it."""
        rising = self._rising[self._num_faded : self._num_faded + len(cleaned)]
        if not len(rising):
            return cleaned
        self._num_faded += len(rising)
        mixed = cleaned.copy()
        mixed[: len(rising)] = _mixed(raw[: len(rising)], cleaned[: len(rising)], rising)
        return mixed

    def out_of(self, cleaned: Samples, raw: Samples) -> Samples:
        """Return the last of it, which ends raw."""
        rising = self._rising[-len(cleaned) :] if len(cleaned) else self._rising[:0]
        mixed = cleaned.copy()
        start = len(mixed) - len(rising)
        mixed[start:] = _mixed(cleaned[start:], raw[start:], rising)
        return mixed


def _num_silent_at_the_end(far: Samples) -> int:
    num = len(far)
    if not far.any():
        return num
    # While a reply plays, its last milliseconds nearly always sound, and no more is looked at.
    for start in (max(num - _LAST_SAMPLES, 0), 0):
        sounding = np.flatnonzero(np.abs(far[start:]) > _SILENCE)
        if len(sounding):
            return num - start - 1 - int(sounding[-1])
    return num


def _mixed(first: Samples, second: Samples, share: Samples) -> Samples:
    return first + share * (second - first)


def _no_samples() -> Samples:
    return np.zeros(0, dtype=np.float32)
