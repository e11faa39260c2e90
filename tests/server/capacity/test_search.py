"""Which number of sessions is tried next, and which is the answer."""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.capacity.search import (
    LEAST_REPEATS,
    MOST_REPEATS,
    STEP,
    Measurement,
    Trial,
    as_row,
    is_settled,
    largest_safe,
    next_sessions,
    problem,
    trial_row,
)

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
    waits_ms=(60.0, 70.0, 80.0) * 4,
)
BAD = replace(GOOD, tick_p99_ms=80.0)


def trial(sessions: int, *together: Measurement) -> Trial:
    """Return a trial beside a good measurement of one session each time."""
    made = together or (GOOD,) * LEAST_REPEATS
    return Trial(sessions, (GOOD,) * len(made), tuple(replace(m, sessions=sessions) for m in made))


def sweep(is_held: Callable[[int], bool], max_sessions: int) -> list[Trial]:
    """Try what the search wants, of a machine that holds what it is said to."""
    trials: list[Trial] = []
    while (number := next_sessions(trials, FRAME_MS, max_sessions)) is not None:
        made = GOOD if is_held(number) else BAD
        trials.append(trial(number, made, made))
    return trials


@given(st.integers(0, 300), st.integers(1, 256))
def test_the_answer_is_found_and_stands_on_its_neighbours(capacity: int, most: int) -> None:
    """A number that holds, at most a quarter below one that does not; few are tried, none twice."""
    trials = sweep(lambda number: number <= capacity, most)
    numbers = [each.sessions for each in trials]
    answer = largest_safe(trials, FRAME_MS)
    truth = min(capacity, most)
    assert answer <= truth
    assert truth - answer < max(1, answer // STEP)
    assert len(set(numbers)) == len(numbers) <= 2 * most.bit_length() + 1
    assert max(numbers) <= most


def test_doubling_then_halving() -> None:
    """Small numbers first: what is too many costs calls nothing, but says little."""
    assert [t.sessions for t in sweep(lambda n: n <= 11, 256)] == [1, 2, 4, 8, 16, 12, 10]
    assert [t.sessions for t in sweep(lambda n: n <= 5, 6)] == [1, 2, 4, 6, 5]
    assert [t.sessions for t in sweep(lambda n: n <= 61, 256)][-3:] == [64, 48, 56]


@given(st.permutations(range(1, 9)), st.sets(st.integers(2, 8)))
def test_every_smaller_number_must_hold(order: list[int], bad: set[int]) -> None:
    """In whatever order they were tried."""
    trials = [trial(n, BAD, BAD) if n in bad else trial(n) for n in order]
    assert largest_safe(trials, FRAME_MS) == min(bad, default=9) - 1


def slower(factor: float) -> Measurement:
    """Return a measurement whose first audio takes so many times as long."""
    return replace(GOOD, waits_ms=tuple(factor * wait for wait in GOOD.waits_ms))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        ({"tick_p99_ms": 79.9}, ""),
        ({"tick_p99_ms": 80.0}, "p99 tick 80 ms"),
        ({"num_missed": 10}, ""),
        ({"num_missed": 11}, "1.1% missed"),
        ({"waits_ms": slower(1.34).waits_ms}, ""),
        ({"waits_ms": slower(1.36).waits_ms}, "first audio 1.36 x (1.36 to 1.36)"),
        ({"waits_ms": (501.0,)}, "first audio 501 ms"),
        ({"num_replies": 0, "waits_ms": ()}, "no reply came"),
        ({"failure": "the engine broke"}, "a session was lost: the engine broke"),
    ],
)
def test_what_is_too_many(change: dict[str, object], said: str) -> None:
    """Each bound is named when it is broken, and only then."""
    measured = replace(GOOD, **change)  # type: ignore[arg-type]  # test shorthand
    assert problem(trial(4, measured), FRAME_MS).startswith(said)
    assert bool(problem(trial(4, measured), FRAME_MS)) == bool(said)


def test_one_bad_repeat_settles_nothing() -> None:
    """What was slow once is measured again, and the middle of all counts."""
    assert not is_settled(trial(4, *[GOOD] * (LEAST_REPEATS - 1)), FRAME_MS)
    assert is_settled(trial(4, *[GOOD] * LEAST_REPEATS), FRAME_MS)
    assert is_settled(trial(4, *[slower(3.0)] * LEAST_REPEATS), FRAME_MS)
    assert not is_settled(trial(4, GOOD, BAD, GOOD), FRAME_MS)
    assert is_settled(trial(4, *[BAD, GOOD] * MOST_REPEATS), FRAME_MS)
    assert not problem(trial(4, GOOD, BAD, GOOD), FRAME_MS)
    assert is_settled(trial(4, replace(GOOD, failure="lost")), FRAME_MS)


def noisy(sessions: int, rng: np.random.Generator, slowness: float) -> Measurement:
    """Return a dozen waits as they scatter, on a machine that is so slow just now."""
    usual_ms = 60.0 * (1 + 0.05 * (sessions - 1)) * slowness
    waits = usual_ms * np.exp(rng.normal(0, 0.25, 6 + 6 * min(sessions, 8)))
    return replace(GOOD, sessions=sessions, waits_ms=tuple(float(w) for w in waits))


def test_searches_of_a_noisy_machine_agree() -> None:
    """Waits scatter, and the machine is now fast, now slow: the answers are within a step or two.

    Truly eight sessions take 1.35 times as long as one, which is all that is allowed.
    """
    answers = []
    for seed in range(15):
        rng = np.random.default_rng(seed)
        trials: list[Trial] = []
        while (number := next_sessions(trials, FRAME_MS, 64)) is not None:
            made = Trial(number)
            while not made.together or not is_settled(made, FRAME_MS):
                slowness = float(np.exp(rng.normal(0, 0.3)))
                made = made.with_pair(noisy(1, rng, slowness), noisy(number, rng, slowness))
            trials.append(made)
        answers.append(largest_safe(trials, FRAME_MS))
    ladder = [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16]
    rungs = sorted(ladder.index(answer) for answer in answers)
    middle = rungs[len(rungs) // 2]
    assert 5 <= ladder[middle] <= 10
    assert sum(abs(rung - middle) <= 1 for rung in rungs) >= 12


def test_a_machine_that_holds_nobody() -> None:
    """One session without a reply ends the search, and the answer is none."""
    silent = replace(GOOD, num_replies=0, waits_ms=())
    assert next_sessions([trial(1, silent, silent)], FRAME_MS, 256) is None
    assert largest_safe([trial(1, silent, silent)], FRAME_MS) == 0


def test_a_row_is_json() -> None:
    """Infinity, which JSON does not have, is null."""
    silent = replace(GOOD, first_audio_p50_ms=float("inf"), waits_ms=())
    row = json.loads(json.dumps(as_row(silent), allow_nan=False))
    assert row["first_audio_p50_ms"] is None
    assert row["first_audio_p95_ms"] == 80.0
    row = json.loads(json.dumps(trial_row(trial(3, silent), FRAME_MS), allow_nan=False))
    assert row["ratio_high"] is None
    assert row["sessions"] == 3
    row = json.loads(json.dumps(trial_row(trial(3), FRAME_MS), allow_nan=False))
    assert (row["ratio"], row["problem"], len(row["together"])) == (1.0, "", LEAST_REPEATS)
