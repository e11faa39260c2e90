"""Decide from speech probabilities where speech begins and ends.

Pure logic: one probability per window goes in, boundaries come out, in milliseconds of the audio
that was fed. Where the probabilities come from is `server.audio.silero`'s business.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
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

# A user's level is that of their speech so far, of which the last few seconds count for most.
_LEVEL_WINDOWS = 64
# Before they have spoken for so long it is not known.
_MIN_LEVEL_WINDOWS = 8
# How loud it is now is that of 128 ms: a syllable has louder and softer parts.
_LEVEL_NOW_WINDOWS = 4

# What is left of an echo makes a sound look longer: a "mhm" of 290 ms is 352 ms of speech alone,
# and 384 beside one.
_ECHO_MS = WINDOW_MS

# An end of turn that was announced from outside stands until the user has spoken on for so long:
# probabilities fall only some windows after the voice does.
_SPOKEN_ON_MS = 400


class Echo(Enum):
    """What of a reply that is played may be in a sound."""

    NONE = auto()
    UNKNOWN = auto()
    """Perhaps all of it: the reply has just begun, and nobody knows yet whether it is heard."""
    REMOVED = auto()
    """Little, and some of the user's voice went with it."""


@dataclass(frozen=True, slots=True)
class Window:
    """What is known of 32 ms of sound.

    Attributes:
        probability: of speech.
        level_db: of its power, against that of 1.0; None where it is not known.
        echo: what else than a user it may be.
    """

    probability: float
    level_db: float | None = None
    echo: Echo = Echo.NONE


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
        interruption: what holds in place of `min_speech_ms` while speech would interrupt a reply;
            None where the same holds.
    """

    threshold: float
    prefix_padding_ms: int
    silence_duration_ms: int
    min_speech_ms: int
    pause_ms: int = 0
    finished_ms: int | None = None
    interruption: "InterruptionRules | None" = None


@dataclass(frozen=True, slots=True)
class InterruptionRules:
    """Say what counts as speech while it would interrupt a reply; no rules: as at any time.

    Attributes:
        speech_ms: speech that it takes to begin a turn. What begins like one and is shorter does
            not interrupt: a cough, a "mhm", what is left of an echo.
        silence_ms: silence after which what began like speech was none.
        quieter_db: speech that is so much quieter than the user was so far is somebody else's, or
            an echo.
    """

    speech_ms: int
    silence_ms: int
    quieter_db: float


@dataclass(frozen=True, slots=True)
class SpeechStart:
    """Speech began: the turn starts at `start_ms`, padding included; known at `at_ms`."""

    start_ms: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class SpeechEnd:
    """The turn ended, trailing silence included, at `at_ms`.

    Attributes:
        silence_ms: how much silence that is.
    """

    at_ms: int
    silence_ms: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class SpeechPause:
    """The turn may have ended; known at `at_ms`. A resumption or the turn's end follows."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class SpeechResumption:
    """The user goes on after a pause; known at `at_ms`."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class InterruptionSuspected:
    """Something began like speech, while it would interrupt; a start or a dismissal follows."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class InterruptionDismissed:
    """What began like speech was none; known at `at_ms`."""

    at_ms: int


Boundary: TypeAlias = (
    SpeechStart
    | SpeechPause
    | SpeechResumption
    | SpeechEnd
    | InterruptionSuspected
    | InterruptionDismissed
)


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
        # Before a turn: the run of speech that may become one, from its onset. In it: speech since
        # its end was announced.
        self._speech_ms = 0
        self._onset_ms = start_ms
        self._silence_ms = 0  # since the last speech, of the turn or of what may become one
        self._is_suspected = False
        self._is_waiting = False  # to know whether what was heard is an echo
        self._is_speech = False
        self._is_paused = False
        self._sounds_finished = False
        self._level = _Level()

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

    def feed(self, window: Window, *, would_interrupt: bool = False) -> Boundary | None:
        """Take the next window and return the boundary that it completes, if any.

        Args:
            window: of sound.
            would_interrupt: whether a turn that begins would end a reply.
        """
        self._now_ms += WINDOW_MS
        is_speech = window.probability >= self._rules.threshold
        # Where an echo was taken out, the user is not quieter because of being farther away.
        level_db = None if window.echo is Echo.REMOVED else window.level_db
        self._level.feed(level_db, is_users=self._is_speech and is_speech)
        if self._is_speech:
            return self._in_speech(window.probability)
        rules = self._rules.interruption if would_interrupt else None
        if window.echo is Echo.UNKNOWN:
            self._wait(rules, is_speech=is_speech)
            return None
        if self._is_waiting and self._was_users(rules, window.echo):
            return self._started()
        # While a reply plays, more is asked of speech. An example with 384 ms needed: 64 ms of
        # speech raise a suspicion, and the reply is held. A cough of 200 ms and then 192 ms of
        # silence: it was none, and the reply goes on. Speech that goes on to 384 ms ends the reply,
        # and the turn begins at its onset.
        if rules is None and not self._is_suspected:
            return self._in_silence(self._rules.min_speech_ms if is_speech else None)
        return self._in_reply(rules, window.echo, is_speech=is_speech)

    def _wait(self, rules: InterruptionRules | None, *, is_speech: bool) -> None:
        """Take a window that may be an echo of a reply that has just begun.

        An example. 500 ms of speech and then silence are heard. Is it the user, or the reply itself
        in a loudspeaker? That will be known in a second. If there is no echo, it was the user: the
        turn begins then, at its onset, and no word is lost. If there is one, it is forgotten, and
        what follows is heard without the echo. Nothing is said of it before: a reply that is held
        cannot be heard, and so it would never be known.
        """
        self._is_waiting = True
        if is_speech and not self._is_quieter(rules):
            self._silence_ms = 0
            self._count_speech()
            return
        self._silence_ms += WINDOW_MS
        longest_ms = 0 if rules is None else rules.silence_ms
        if self._silence_ms > longest_ms and self._speech_ms < self._needed_ms(rules):
            self._speech_ms = 0

    def _was_users(self, rules: InterruptionRules | None, echo: Echo) -> bool:
        """Say of what was waited for whether it begins a turn, now that its source is known."""
        self._is_waiting = False
        if echo is Echo.REMOVED:
            self._speech_ms = 0
        return self._speech_ms >= max(self._needed_ms(rules), WINDOW_MS)

    def _in_silence(self, needed_ms: int | None) -> Boundary | None:
        """Take a window of no turn, which is speech if so much of it is needed."""
        if needed_ms is None:
            self._speech_ms = 0
            return None
        self._count_speech()
        return self._started() if self._speech_ms >= needed_ms else None

    def _count_speech(self) -> None:
        if not self._speech_ms:
            self._onset_ms = self._now_ms - WINDOW_MS
        self._speech_ms += WINDOW_MS

    def _needed_ms(self, rules: InterruptionRules | None) -> int:
        """Return how much speech begins a turn."""
        if rules is None:
            return self._rules.min_speech_ms
        return max(self._rules.min_speech_ms, rules.speech_ms)

    def _is_quieter(self, rules: InterruptionRules | None) -> bool:
        return rules is not None and self._level.is_quieter(rules.quieter_db)

    def _in_reply(
        self, rules: InterruptionRules | None, echo: Echo, *, is_speech: bool
    ) -> Boundary | None:
        """Take a window of no turn; one that would interrupt, or was suspected to.

        Args:
            rules: None if the reply is over meanwhile.
            echo: what of it may be in the window.
            is_speech: whether it may be speech, whosever.
        """
        if not is_speech or self._is_quieter(rules):
            return self._not_spoken(rules)
        self._silence_ms = 0
        needed_ms = self._needed_ms(rules)
        if rules is not None and echo is Echo.REMOVED:
            needed_ms += _ECHO_MS
        start = self._in_silence(needed_ms)
        if start is not None or self._is_suspected:
            return start
        if self._speech_ms < self._rules.min_speech_ms:
            return None
        self._is_suspected = True
        return InterruptionSuspected(self._now_ms)

    def _not_spoken(self, rules: InterruptionRules | None) -> Boundary | None:
        if not self._is_suspected:
            self._speech_ms = 0
            return None
        self._silence_ms += WINDOW_MS
        if rules is not None and self._silence_ms < rules.silence_ms:
            return None
        self._is_suspected = False
        self._speech_ms = 0
        return InterruptionDismissed(self._now_ms)

    def _started(self) -> SpeechStart:
        self._is_speech = True
        self._is_suspected = self._is_waiting = self._sounds_finished = False
        self._silence_ms = 0
        # For example, speech is found at 1,000 ms with 300 ms of padding: the turn starts at 700
        # ms, so that a soft first sound is in it. But if the turn before ended at 850 ms, it starts
        # there: no sound belongs to two turns. Source: Realtime reference,
        # `turn_detection.prefix_padding_ms`.
        start_ms = max(self._onset_ms - self._rules.prefix_padding_ms, self._previous_end_ms)
        return SpeechStart(start_ms, self._now_ms)

    def _in_speech(self, probability: float) -> Boundary | None:
        if probability >= self._rules.threshold:
            return self._spoken_on()
        # For example, with a threshold of 0.5 speech begins at 0.5 and ends under 0.35.
        # Probabilities of 0.8, 0.45, 0.3, 0.4 and 0.6 are: speech, still speech, silence (32 ms),
        # still silence (64 ms), speech again. silero-vad's own iterator has the same gap of 0.15.
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
        return SpeechEnd(self._now_ms, self._silence_ms)

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


class _Level:
    """Know how loud a user speaks, and how loud it is now."""

    def __init__(self) -> None:
        self._power = 0.0  # of the user's speech
        self._num_windows = 0
        self._recent: deque[float] = deque(maxlen=_LEVEL_NOW_WINDOWS)

    def feed(self, level_db: float | None, *, is_users: bool) -> None:
        """Take the next window.

        Args:
            level_db: of its sound, None if it says nothing.
            is_users: whether it is speech in a turn.
        """
        if level_db is None:
            self._recent.clear()
            return
        power = 10 ** (level_db / 10)
        self._recent.append(power)
        if is_users:
            self._num_windows = min(self._num_windows + 1, _LEVEL_WINDOWS)
            # A mean at first, and after 64 windows (2 s of speech) one that forgets. Of power and
            # not of decibels, since loud syllables are what is heard.
            self._power += (power - self._power) / self._num_windows

    def is_quieter(self, by_db: float) -> bool:
        """Say whether it is so much quieter now than the user was, as far as that is known."""
        if self._num_windows < _MIN_LEVEL_WINDOWS or not self._recent:
            return False
        return sum(self._recent) / len(self._recent) < self._power * 10 ** (-by_db / 10)
