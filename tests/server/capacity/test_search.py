"""Which number of sessions is tried next, and which is the answer."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.capacity.search import Measurement, as_row, largest_safe, next_sessions, problem

FRAME_MS = 80
GOOD = Measurement(
    sessions=1,
    seconds=15.0,
    num_ticks=100,
    tick_p50_ms=8.0,
    tick_p95_ms=20.0,
    tick_p99_ms=30.0,
    num_replies=10,
    first_audio_p50_ms=60.0,
    first_audio_p95_ms=80.0,
    num_frames=1000,
    num_missed=0,
)
BAD = replace(GOOD, tick_p99_ms=80.0)


def sweep(capacity: int, max_sessions: int) -> list[Measurement]:
    """Measure what the search wants, of a machine that holds so many."""
    measured: list[Measurement] = []
    while (number := next_sessions(measured, FRAME_MS, max_sessions)) is not None:
        measured.append(replace(GOOD if number <= capacity else BAD, sessions=number))
    return measured


@given(st.integers(0, 300), st.integers(1, 256))
def test_the_answer_is_found_and_stands_on_its_neighbours(capacity: int, most: int) -> None:
    """The largest number that holds, next to one that does not; few are tried, none twice."""
    measured = sweep(capacity, most)
    numbers = [each.sessions for each in measured]
    answer = largest_safe(measured, FRAME_MS)
    assert answer == min(capacity, most)
    assert answer == most or answer + 1 in numbers
    assert len(set(numbers)) == len(numbers) <= 2 * most.bit_length() + 1
    assert max(numbers) <= most


def test_doubling_then_halving() -> None:
    """Small numbers first: what is too many costs calls nothing, but says little."""
    assert [each.sessions for each in sweep(11, 256)] == [1, 2, 4, 8, 16, 12, 10, 11]
    assert [each.sessions for each in sweep(5, 6)] == [1, 2, 4, 6, 5]


@given(st.permutations(range(1, 9)), st.sets(st.integers(2, 8)))
def test_every_smaller_number_must_hold(order: list[int], bad: set[int]) -> None:
    """In whatever order they were measured."""
    measured = [replace(BAD if n in bad else GOOD, sessions=n) for n in order]
    assert largest_safe(measured, FRAME_MS) == min(bad, default=9) - 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        ({"tick_p99_ms": 79.9}, ""),
        ({"tick_p99_ms": 80.0}, "p99 tick 80 ms"),
        ({"num_missed": 10}, ""),
        ({"num_missed": 11}, "1.1% missed"),
        ({"first_audio_p95_ms": 107.0}, ""),
        ({"first_audio_p95_ms": 109.0}, "first audio 1.36 x"),
        ({"num_replies": 0, "first_audio_p95_ms": float("inf")}, "no reply came"),
        ({"failure": "the engine broke"}, "a session was lost: the engine broke"),
    ],
)
def test_what_is_too_many(change: dict[str, float | str], said: str) -> None:
    """Each bound is named when it is broken, and only then."""
    measured = replace(GOOD, sessions=4, **change)  # type: ignore[arg-type]  # test shorthand
    assert problem(measured, GOOD, FRAME_MS) == said


def test_a_machine_that_holds_nobody() -> None:
    """One session without a reply ends the search, and the answer is none."""
    silent = replace(GOOD, num_replies=0, first_audio_p95_ms=float("inf"))
    assert next_sessions([silent], FRAME_MS, 256) is None
    assert largest_safe([silent], FRAME_MS) == 0


def test_a_row_is_json() -> None:
    """Infinity, which JSON does not have, is null."""
    silent = replace(GOOD, first_audio_p50_ms=float("inf"))
    row = json.loads(json.dumps(as_row(silent), allow_nan=False))
    assert row["first_audio_p50_ms"] is None
    assert row["first_audio_p95_ms"] == 80.0
