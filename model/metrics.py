"""Count what the engine does. Written by the engine's thread, read by anyone at any time.

The type of each field says what it is and how it is shown, so that whoever shows them needs no
list of them: a new field appears at `/metrics` by itself. A dictionary is replaced as a whole,
since someone may be reading it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Annotated, Literal, TypeAlias

# A worked example of buckets: a tick of 7 ms is counted in the fourth one, over 5 and up to 10. One
# of exactly 5 ms is in the third. One of 200 ms is in the last, which has no bound.
# Upper bounds in milliseconds; 80 is one frame, beyond which a tick is late by itself.
TICK_BUCKETS_MS = (1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 60.0, 80.0, 160.0)
BATCH_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)

MetricKind: TypeAlias = Literal["counter", "gauge", "histogram", "part"]


@dataclass(frozen=True, slots=True)
class Shown:
    """Say how a field is shown.

    Attributes:
        kind: "counter" only grows, "gauge" goes up and down, "histogram" is a list with the count
            of each bucket and of what lies above all, "part" belongs to another field.
        help: what is counted, in one sentence.
        name: under which it is shown; empty for the field's own.
        label: of a dictionary's keys; empty for a plain number. A histogram with a label is a
            dictionary of lists, and its sums are one of numbers.
        bounds: upper ones of a histogram's buckets, in the unit of `name`.
        sum_field: field that holds the sum of a histogram's values.
    """

    kind: MetricKind
    help: str
    name: str = ""
    label: str = ""
    bounds: tuple[float, ...] = ()
    sum_field: str = ""


def counter(text: str) -> Shown:
    """Declare a field that only grows."""
    return Shown("counter", text)


def counter_by(label: str, text: str) -> Shown:
    """Declare a dictionary of numbers that only grow; `label` says what its keys are."""
    return Shown("counter", text, label=label)


def gauge(text: str) -> Shown:
    """Declare a field that goes up and down."""
    return Shown("gauge", text)


PART = Shown("part", "")
"""Declares a field that is shown with another."""


def no_counts(bounds: tuple[float, ...]) -> list[int]:
    """Return the empty buckets of a histogram with these upper bounds."""
    return [0] * (len(bounds) + 1)


def bucket(bounds: tuple[float, ...], value: float) -> int:
    """Return the index of the bucket that a value is counted in."""
    return bisect_left(bounds, value)


@dataclass(slots=True)
class EngineMetrics:
    """Hold counters that only grow, and gauges of what is so now.

    What a field counts is said once, where it is declared, and shown by the server at `/metrics`.
    A histogram's list has one count for each upper bound, and one for all above the last.
    """

    ticks: Annotated[int, counter("Ticks that did something.")] = 0
    steps: Annotated[int, PART] = 0
    batch_buckets: Annotated[
        list[int],
        Shown(
            "histogram",
            "Rows of the model's batch in a tick.",
            name="batch_rows",
            bounds=BATCH_BUCKETS,
            sum_field="steps",
        ),
    ] = field(default_factory=lambda: no_counts(BATCH_BUCKETS))
    rows: Annotated[
        dict[str, int],
        counter_by("phase", "Rows of the model's batches by the phase of their session."),
    ] = field(default_factory=dict)
    tick_seconds: Annotated[float, PART] = 0.0
    tick_buckets: Annotated[
        list[int],
        Shown(
            "histogram",
            "Duration of a tick.",
            name="tick_seconds",
            bounds=tuple(bound / 1000 for bound in TICK_BUCKETS_MS),
            sum_field="tick_seconds",
        ),
    ] = field(default_factory=lambda: no_counts(TICK_BUCKETS_MS))
    encode_seconds: Annotated[float, counter("Time spent encoding what users said.")] = 0.0
    lm_seconds: Annotated[float, counter("Time spent in the language model.")] = 0.0
    depth_seconds: Annotated[float, counter("Time spent in the depth transformer.")] = 0.0
    decode_seconds: Annotated[float, counter("Time spent decoding replies to sound.")] = 0.0
    frames_heard: Annotated[int, counter("Frames of users that were encoded.")] = 0
    frames_heard_late: Annotated[
        int, counter("Frames of users that were heard after the next one had been spoken.")
    ] = 0
    frames_spoken: Annotated[int, counter("Frames of replies that were made.")] = 0
    frames_late: Annotated[
        int, counter("Frames that were made after the client had nothing left to play.")
    ] = 0
    sessions_failed: Annotated[int, counter("Sessions that were lost to errors.")] = 0
    prompt_hits: Annotated[int, counter("Sessions whose beginning was known already.")] = 0
    prompt_misses: Annotated[int, counter("Sessions whose beginning had to be fed.")] = 0
    parks: Annotated[int, counter("Times that a session's memory went to host memory.")] = 0
    unparks: Annotated[int, counter("Times that a session's memory came back.")] = 0
    sessions: Annotated[int, gauge("Sessions that have a slot.")] = 0
    parked: Annotated[int, gauge("Sessions whose memory is in host memory.")] = 0
    pages_used: Annotated[int, gauge("Pages of keys and values in use.")] = 0
    pages_total: Annotated[int, gauge("Pages of keys and values that there are.")] = 0

    def clear(self) -> None:
        """Start counting from zero."""
        for name, zero in asdict(EngineMetrics()).items():
            setattr(self, name, zero)

    def count_tick(self, seconds: float, rows: int) -> None:
        """Count one tick of `rows` batch rows that took `seconds`."""
        self.ticks += 1
        self.steps += rows
        self.batch_buckets[bucket(BATCH_BUCKETS, rows)] += 1
        self.tick_seconds += seconds
        self.tick_buckets[bucket(TICK_BUCKETS_MS, seconds * 1000)] += 1

    def count_rows(self, phases: Iterable[str]) -> None:
        """Count the rows of a batch, given the phase of each row's session."""
        # Another thread may be reading the old dictionary. It keeps what it has, and finds the new
        # one the next time.
        counted = dict(self.rows)
        for phase in phases:
            counted[phase] = counted.get(phase, 0) + 1
        self.rows = counted
