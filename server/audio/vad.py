"""Decide from speech probabilities where speech begins and ends.

Pure logic: one probability per window goes in, boundaries come out, in milliseconds of the audio
that was fed. Where the probabilities come from is `server.audio.silero`'s business.
"""

from dataclasses import dataclass
from typing import TypeAlias

WINDOW_MS = 32
"""Milliseconds of audio per probability."""

# Speech has ended when the probability is this much under the threshold that began it: between the
# two, whatever was the case goes on. Without the gap, a voice at the threshold flickers.
_HYSTERESIS = 0.15
_MIN_END_THRESHOLD = 0.01

# Speech to somebody who looks for any. Measured with two windows in a row: none in noise of nine
# kinds and six levels, also where hiss sets in after speech, which 0.3 takes for some; all of 255
# utterances at -20 dBFS, all but 1 at -30, all but 11 at -40.
_ANY_THRESHOLD = 0.5

# An end of turn that was announced from outside stands until the user has spoken on for so long:
# probabilities fall only some windows after the voice does.
_SPOKEN_ON_MS = 400


@dataclass(frozen=True, slots=True)
class VadRules:
    """Say what counts as a turn.

    Attributes:
        threshold: probability from which a window is speech.
        prefix_padding_ms: audio before the first speech that belongs to the turn.
        silence_duration_ms: silence that ends the turn.
        min_speech_ms: speech that it takes to begin a turn; a click is shorter.
        pause_ms: silence within a turn that may turn out to be its end, 0 for none.
        finished_ms: silence that ends a turn which sounds finished to the model, where the model
            is asked. A silence may then be the end only once the model says so; None where it is
            not asked.
    """

    threshold: float
    prefix_padding_ms: int
    silence_duration_ms: int
    min_speech_ms: int
    pause_ms: int = 0
    finished_ms: int | None = None


@dataclass(frozen=True, slots=True)
class SpeechStart:
    """Speech began: the turn starts at `start_ms`, padding included; known at `at_ms`."""

    start_ms: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class SpeechEnd:
    """The turn ended, trailing silence included, at `at_ms`."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class SpeechPause:
    """The turn may have ended; known at `at_ms`. A resumption or the turn's end follows."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class SpeechResumption:
    """The user goes on after a pause; known at `at_ms`."""

    at_ms: int


Boundary: TypeAlias = SpeechStart | SpeechPause | SpeechResumption | SpeechEnd


class SpeechSpotter:
    """Say of audio whether anybody speaks in it.

    It does not follow the client's threshold: who commits by hand may have set none, or one so high
    that hardly anything begins a turn.

    Args:
        min_speech_ms: speech in a row that is not a click.
    """

    def __init__(self, min_speech_ms: int) -> None:
        self._min_speech_ms = min_speech_ms
        self._speech_ms = 0
        self._has_speech = False

    def feed(self, probability: float) -> None:
        """Take the next window's probability."""
        self._speech_ms = self._speech_ms + WINDOW_MS if probability >= _ANY_THRESHOLD else 0
        if self._speech_ms >= max(self._min_speech_ms, WINDOW_MS):
            self._has_speech = True

    def take(self) -> bool:
        """Return whether there was any since this was called last."""
        has_speech, self._has_speech = self._has_speech, False
        return has_speech


class SpeechSegmenter:
    """Find turns in a stream of probabilities.

    Args:
        rules: what counts as a turn.
        start_ms: where in the appended audio the stream begins; no turn reaches back before it.
    """

    def __init__(self, rules: VadRules, start_ms: int = 0) -> None:
        self._rules = rules
        self._now_ms = start_ms
        self._previous_end_ms = start_ms
        # Before a turn: the run of speech that may become one. In it: speech since its end was
        # announced.
        self._speech_ms = 0
        self._silence_ms = 0  # since the last speech of the turn
        self._is_speech = False
        self._is_paused = False
        self._sounds_finished = False

    @property
    def now_ms(self) -> int:
        """Return where in the appended audio the stream is."""
        return self._now_ms

    def change_rules(self, rules: VadRules) -> None:
        """Go on by other rules; a turn that is going on stays one."""
        self._rules = rules

    def is_doubtful(self, probability: float) -> bool:
        """Say whether what follows from the next window depends on the model's word."""
        is_asked = self._is_speech and self._rules.finished_ms is not None
        return is_asked and probability < self._rules.threshold

    def sounds_finished(self, *, is_finished: bool) -> None:
        """Note whether the present turn sounds finished: its next silence is a pause at once."""
        self._sounds_finished = is_finished
        self._speech_ms = 0

    def feed(self, probability: float) -> Boundary | None:
        """Take the next window's probability and return the boundary it completes, if any."""
        self._now_ms += WINDOW_MS
        return self._in_speech(probability) if self._is_speech else self._in_silence(probability)

    def _in_silence(self, probability: float) -> Boundary | None:
        if probability < self._rules.threshold:
            self._speech_ms = 0
            return None
        self._speech_ms += WINDOW_MS
        if self._speech_ms < self._rules.min_speech_ms:
            return None
        self._is_speech = True
        self._sounds_finished = False
        self._silence_ms = 0
        onset_ms = self._now_ms - self._speech_ms
        start_ms = max(onset_ms - self._rules.prefix_padding_ms, self._previous_end_ms)
        return SpeechStart(start_ms, self._now_ms)

    def _in_speech(self, probability: float) -> Boundary | None:
        if probability >= self._rules.threshold:
            return self._spoken_on()
        end_threshold = max(self._rules.threshold - _HYSTERESIS, _MIN_END_THRESHOLD)
        # Between the thresholds a pause goes on as a pause, and speech as speech.
        if probability < end_threshold or self._silence_ms:
            self._silence_ms += WINDOW_MS
        needed_ms = self._rules.silence_duration_ms
        if self._sounds_finished and self._rules.finished_ms is not None:
            needed_ms = self._rules.finished_ms
        if self._silence_ms < max(needed_ms, WINDOW_MS):
            return self._paused()
        self._is_speech = self._is_paused = False
        self._speech_ms = 0
        self._previous_end_ms = self._now_ms
        return SpeechEnd(self._now_ms)

    def _spoken_on(self) -> Boundary | None:
        self._silence_ms = 0
        self._speech_ms += WINDOW_MS
        if self._speech_ms > _SPOKEN_ON_MS:
            self._sounds_finished = False
        if not self._is_paused:
            return None
        self._is_paused = False
        return SpeechResumption(self._now_ms)

    def _paused(self) -> Boundary | None:
        is_long = self._rules.finished_ms is None and self._silence_ms >= self._rules.pause_ms
        is_enough = is_long or self._sounds_finished
        if self._is_paused or not self._silence_ms or not self._rules.pause_ms or not is_enough:
            return None
        self._is_paused = True
        return SpeechPause(self._now_ms)
