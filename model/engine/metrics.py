"""Count what the engine does. Written by the engine's thread, read by anyone at any time."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import asdict, dataclass, field

# Upper bounds in milliseconds; 80 is one frame, beyond which a tick is late by itself.
TICK_BUCKETS_MS = (1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 60.0, 80.0, 160.0)


@dataclass(slots=True)
class EngineMetrics:
    """Hold counters that only grow, and gauges of what is so now.

    Attributes:
        ticks: ticks that did something.
        steps: rows of the model's batches, summed over ticks; a prefill of many steps is one.
        tick_seconds: time spent in ticks.
        tick_buckets: ticks by duration, one count a bound of `TICK_BUCKETS_MS` and one above all.
        encode_seconds, lm_seconds, depth_seconds, decode_seconds: time by part.
        frames_heard: frames of users encoded.
        frames_spoken: frames of replies made.
        frames_late: frames delivered after the client had nothing left to play.
        sessions_failed: sessions lost to errors.
        prompt_hits: sessions whose beginning was known already.
        prompt_misses: sessions whose beginning had to be fed.
        parks: times that a session's memory went to host memory to make room.
        unparks: times that one came back.
        sessions: sessions open now.
        parked: those whose memory is in host memory now.
        pages_used: pages of keys and values in use now, a shared one counted once.
        pages_total: pages there are.
    """

    ticks: int = 0
    steps: int = 0
    tick_seconds: float = 0.0
    tick_buckets: list[int] = field(default_factory=lambda: [0] * (len(TICK_BUCKETS_MS) + 1))
    encode_seconds: float = 0.0
    lm_seconds: float = 0.0
    depth_seconds: float = 0.0
    decode_seconds: float = 0.0
    frames_heard: int = 0
    frames_spoken: int = 0
    frames_late: int = 0
    sessions_failed: int = 0
    prompt_hits: int = 0
    prompt_misses: int = 0
    parks: int = 0
    unparks: int = 0
    sessions: int = 0
    parked: int = 0
    pages_used: int = 0
    pages_total: int = 0

    def clear(self) -> None:
        """Start counting from zero."""
        for counter, zero in asdict(EngineMetrics()).items():
            setattr(self, counter, zero)

    def count_tick(self, seconds: float, rows: int) -> None:
        """Count one tick of `rows` batch rows that took `seconds`."""
        self.ticks += 1
        self.steps += rows
        self.tick_seconds += seconds
        self.tick_buckets[bisect_left(TICK_BUCKETS_MS, seconds * 1000)] += 1
