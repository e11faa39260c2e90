"""Find how many sessions are held: double until it is too many, then halve the gap. Pure."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

MAX_MISSED = 0.01
"""Share of frames that may be missed."""
MAX_FIRST_AUDIO_RATIO = 1.5
"""How much longer the first audio may take, p95, than with one session: what is promised."""
_MARGIN = 0.9  # what is measured in seconds must hold for days


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

    @property
    def missed(self) -> float:
        """Return the share of frames that were missed."""
        return self.num_missed / max(1, self.num_frames)


def as_row(measured: Measurement) -> dict[str, object]:
    """Return a measurement for JSON, which has no infinity: null where nothing was measured."""
    row = asdict(measured)
    return {name: None if value == math.inf else value for name, value in row.items()}


def problem(measured: Measurement, alone: Measurement, frame_ms: int) -> str:
    """Say why so many sessions are too many; empty if they are not.

    Args:
        measured: with so many.
        alone: with one.
        frame_ms: length of a frame, which a tick must not reach.
    """
    ratio = measured.first_audio_p95_ms / alone.first_audio_p95_ms
    if measured.failure:
        return f"a session was lost: {measured.failure}"
    if not measured.num_replies:
        return "no reply came"
    if measured.tick_p99_ms >= frame_ms:
        return f"p99 tick {measured.tick_p99_ms:.0f} ms"
    if measured.missed > MAX_MISSED:
        return f"{measured.missed:.1%} missed"
    if not ratio <= _MARGIN * MAX_FIRST_AUDIO_RATIO:
        return f"first audio {ratio:.2f} x"
    return ""


def largest_safe(measurements: Sequence[Measurement], frame_ms: int) -> int:
    """Return the largest number of sessions that is held, and every smaller one measured too.

    Args:
        measurements: in any order; each number of sessions at most once.
        frame_ms: length of a frame.
    """
    safe = 0
    in_order = sorted(measurements, key=lambda measured: measured.sessions)
    for measured in in_order:
        if problem(measured, in_order[0], frame_ms):
            break
        safe = measured.sessions
    return safe


def next_sessions(
    measurements: Sequence[Measurement], frame_ms: int, max_sessions: int
) -> int | None:
    """Return how many sessions to try next; None when the answer is known.

    Args:
        measurements: so far.
        frame_ms: length of a frame.
        max_sessions: most to try.
    """
    if not measurements:
        return 1
    safe = largest_safe(measurements, frame_ms)
    too_many = min((m.sessions for m in measurements if m.sessions > safe), default=None)
    if too_many is None:
        return min(2 * safe, max_sessions) if safe < max_sessions else None
    if too_many - safe <= 1:
        return None
    return (safe + too_many) // 2
