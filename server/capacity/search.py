"""Find how many sessions are held: double until it is too many, then halve the gap. Pure.

If it is close, one measurement of some seconds decides by chance: the p95 of a dozen waits is a
single one of them. So each number is measured several times, and one session alone before or after
it each time. What slows the machine then slows both. A number is settled when the interval of the
ratio lies on one side of what is allowed, or when it has been measured often enough for the middle
of it to count.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median

import numpy as np

MAX_MISSED = 0.01
"""Share of frames that may be missed."""
MAX_FIRST_AUDIO_RATIO = 1.5
"""How much longer the first audio may take, p95, than with one session: what is promised."""
MAX_FIRST_AUDIO_MS = 500.0
"""How long the first audio may take, p95, whatever it takes with one session."""
LEAST_REPEATS, MOST_REPEATS = 3, 6
"""How often a number of sessions is measured."""
# With 8 held, 9 and 10 are not told apart by measuring for minutes, so neither is tried.
STEP = 4
"""The answer is looked for to a quarter of itself: closer than that no two searches agree."""
# 1.5 may be promised, so a number is admitted with 1.35 or less.
_MARGIN = 0.9  # what is measured in minutes must hold for days
_LEVEL = 0.8  # of the interval
# The 10th percentile of 400 has 40 below it, so it hardly moves from one seed to another.
_DRAWS = 400


@dataclass(frozen=True, slots=True)
class Measurement:
    """What callers noticed, and what the engine did, with so many sessions.

    Attributes:
        sessions: that were held at once.
        seconds: for which they were.
        num_ticks: that did something.
        tick_p50_ms, tick_p95_ms, tick_p99_ms: their durations.
        num_replies: whose first audio was waited for.
        first_audio_p50_ms, first_audio_p95_ms: from the end of a question to the first audio of its
            reply; infinity if there was none.
        num_frames: of users and replies.
        num_missed: of these, frames of replies that came when there was nothing left to play, and
            frames of users that were heard after the next one had been spoken.
        failure: why a session was lost; empty if none was.
        waits_ms: for the first audio of each reply.
    """

    sessions: int
    seconds: float
    num_ticks: int
    tick_p50_ms: float
    tick_p95_ms: float
    tick_p99_ms: float
    num_replies: int
    first_audio_p50_ms: float
    first_audio_p95_ms: float
    num_frames: int
    num_missed: int
    failure: str = ""
    waits_ms: tuple[float, ...] = ()

    @property
    def missed(self) -> float:
        """Return the share of frames that were missed."""
        return self.num_missed / max(1, self.num_frames)


@dataclass(frozen=True, slots=True)
class Trial:
    """A number of sessions, measured several times, each time beside one session.

    Attributes:
        sessions: that were held at once.
        alone: measurements of one session.
        together: of so many, each made right after the one of `alone` at its place. With one
            session these are the same.
    """

    sessions: int
    alone: tuple[Measurement, ...] = ()
    together: tuple[Measurement, ...] = ()

    def with_pair(self, alone: Measurement, together: Measurement) -> "Trial":
        """Return the trial with one more repeat."""
        return Trial(self.sessions, (*self.alone, alone), (*self.together, together))

    @property
    def first_audio_p95_ms(self) -> float:
        """Return the 95th percentile of all waits; infinity if there were none."""
        return _p95(_waits(self.together))

    @property
    def ratio(self) -> float:
        """Return how much longer the first audio takes, p95, than with one session."""
        if self.sessions == 1:
            return 1.0
        return _p95(_waits(self.together)) / _p95(_waits(self.alone))

    @property
    def interval(self) -> tuple[float, float]:
        """Bounds of the interval in which the ratio lies in four of five such trials.

        Source: Efron 1979, "Bootstrap methods", percentiles of resampled waits.
        """
        if self.sessions == 1:
            return 1.0, 1.0
        alone, together = (np.array(_waits(m)) for m in (self.alone, self.together))
        if not len(alone) or not len(together):
            return 0.0, math.inf
        rng = np.random.default_rng(0)
        drawn = (
            np.percentile(rng.choice(waits, (_DRAWS, len(waits))), 95, axis=1)
            for waits in (together, alone)
        )
        # 400 times both samples are drawn anew, with repetition, and the ratio of their p95 is
        # taken. Between the 10th and the 90th percentile of these ratios lie four of five.
        ratios = next(drawn) / next(drawn)
        # 0.8 gives the percentiles 10 and 90.
        low, high = np.percentile(ratios, (50 * (1 - _LEVEL), 50 * (1 + _LEVEL)))
        return float(low), float(high)


def _waits(measurements: Sequence[Measurement]) -> list[float]:
    return [wait for measured in measurements for wait in measured.waits_ms]


def _p95(waits_ms: Sequence[float]) -> float:
    return float(np.percentile(waits_ms, 95)) if waits_ms else math.inf


def as_row(measured: Measurement) -> dict[str, object]:
    """Return a measurement for JSON, which has no infinity: null where nothing was measured."""
    row = asdict(measured)
    del row["waits_ms"]
    return {name: None if value == math.inf else value for name, value in row.items()}


def trial_row(trial: Trial, frame_ms: int) -> dict[str, object]:
    """Return a trial for JSON: its ratio, the interval, what is wrong, and each measurement."""
    low, high = trial.interval
    figures = {"ratio": trial.ratio, "ratio_low": low, "ratio_high": high}
    return {
        "sessions": trial.sessions,
        **{name: round(v, 3) if math.isfinite(v) else None for name, v in figures.items()},
        "problem": problem(trial, frame_ms),
        "alone": [as_row(m) for m in trial.alone],
        "together": [as_row(m) for m in trial.together],
    }


def problem(trial: Trial, frame_ms: int) -> str:
    """Say why so many sessions are too many; empty if they are not.

    Args:
        trial: with at least one repeat.
        frame_ms: length of a frame, which a tick must not reach.
    """
    together = trial.together
    failure = next((m.failure for m in together if m.failure), "")
    num_missed, num_frames = (
        sum(getattr(m, name) for m in together) for name in ("num_missed", "num_frames")
    )
    missed, tick_ms = num_missed / max(1, num_frames), median(m.tick_p99_ms for m in together)
    if failure:
        return f"a session was lost: {failure}"
    if not sum(m.num_replies for m in together):
        return "no reply came"
    if tick_ms >= frame_ms:
        return f"p99 tick {tick_ms:.0f} ms"
    if missed > MAX_MISSED:
        return f"{missed:.1%} missed"
    if trial.first_audio_p95_ms > MAX_FIRST_AUDIO_MS:
        return f"first audio {trial.first_audio_p95_ms:.0f} ms"
    # Written so that a ratio that is not a number (no waits on either side) is a problem too.
    if not trial.ratio <= _MARGIN * MAX_FIRST_AUDIO_RATIO:
        low, high = trial.interval
        return f"first audio {trial.ratio:.2f} x ({low:.2f} to {high:.2f})"
    return ""


def is_settled(trial: Trial, frame_ms: int) -> bool:
    """Tell whether measuring a number of sessions once more would hardly change what is said of it.

    What is bounded otherwise than by the ratio is settled when all repeats say the same.
    """
    repeats = len(trial.together)
    # A session that was lost once is one too many, however well the others went.
    if repeats >= MOST_REPEATS or any(m.failure for m in trial.together):
        return True
    if repeats < LEAST_REPEATS:
        return False
    each = [
        Trial(trial.sessions, (a,), (b,)) for a, b in zip(trial.alone, trial.together, strict=True)
    ]
    others = {_is_other_problem(one, frame_ms) for one in each}
    if len(others) > 1:
        return False
    low, high = trial.interval
    # For example, an interval of 1.10 to 1.28 is settled and held; 1.40 to 1.90 is settled and too
    # many; 1.20 to 1.45 has 1.35 inside, and is measured again.
    allowed = _MARGIN * MAX_FIRST_AUDIO_RATIO
    return others == {True} or high <= allowed or low > allowed


def _is_other_problem(trial: Trial, frame_ms: int) -> bool:
    said = problem(trial, frame_ms)
    return bool(said) and not said.startswith("first audio")


def largest_safe(trials: Sequence[Trial], frame_ms: int) -> int:
    """Return the largest number of sessions that is held, and every smaller one measured too.

    Args:
        trials: in any order; each number of sessions at most once.
        frame_ms: length of a frame.
    """
    safe = 0
    for trial in sorted(trials, key=lambda trial: trial.sessions):
        if problem(trial, frame_ms):
            break
        safe = trial.sessions
    return safe


def next_sessions(trials: Sequence[Trial], frame_ms: int, max_sessions: int) -> int | None:
    """Return how many sessions to try next; None when the answer is known.

    Args:
        trials: so far.
        frame_ms: length of a frame.
        max_sessions: most to try.
    """
    if not trials:
        return 1
    # An example: 1, 2, 4 and 8 hold, 16 is too many. Then 12 is tried, between 8 and 16. If it
    # holds, 16 - 12 = 4 is more than 12 // 4 = 3, so 14 is tried. If that is too many, 14 - 12 = 2
    # is close enough, and the answer is 12.
    safe = largest_safe(trials, frame_ms)
    too_many = min((t.sessions for t in trials if t.sessions > safe), default=None)
    if too_many is None:
        return min(2 * safe, max_sessions) if safe < max_sessions else None
    if too_many - safe <= max(1, safe // STEP):
        return None
    return (safe + too_many) // 2
