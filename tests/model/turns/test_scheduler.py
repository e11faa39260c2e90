"""Who is served: the earliest deadline, and nobody who can wait while others cannot."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.engine.config import EngineConfig
from model.turns.phase import Phase
from model.turns.scheduler import Scheduler, urgency
from model.turns.slot import Playout, Slot, Urgency

NOW_S = 50.0


def slot(
    index: int, work: Urgency | None, since_s: float = NOW_S, ends_s: float | None = None
) -> Slot:
    """Return a slot as the scheduler sees it."""
    program = None  # never looked at
    return Slot(index, program, torch.Generator(), Playout(ends_s), work, since_s)  # type: ignore[arg-type]


def chosen(*slots: Slot, **settings: Any) -> list[int]:
    """Return the indices of those served at `NOW_S`, in order."""
    scheduler = Scheduler(EngineConfig(**settings), frame_s=0.08)
    return [s.index for s in scheduler.choose(slots, NOW_S)]


def test_first_audio_goes_before_playout() -> None:
    """A reply with audio in hand waits for one that has none, until it runs short itself."""
    first = slot(0, Urgency.ANSWER)
    rich = slot(1, Urgency.PLAYOUT, ends_s=NOW_S + 0.5)
    poor = slot(2, Urgency.PLAYOUT, ends_s=NOW_S + 0.03)
    assert chosen(first, rich, poor) == [0, 2]
    assert chosen(rich, poor) == [2]
    assert chosen(rich) == [1]


def test_audio_beyond_the_budget_is_not_made() -> None:
    """A reply that is far enough ahead is not due, and says when it will be."""
    rich = slot(0, Urgency.PLAYOUT, ends_s=NOW_S + 0.7)
    assert chosen(rich, ahead_ms=600) == []
    scheduler = Scheduler(EngineConfig(ahead_ms=600), frame_s=0.08)
    assert scheduler.next_due_s([rich, slot(1, None)]) == pytest.approx(NOW_S + 0.1)
    assert scheduler.next_due_s([slot(1, None)]) is None


def test_deadlines_decide_who_fits() -> None:
    """When not all fit, the longest waiting answer goes first, then frames by their age."""
    slots = [
        slot(0, Urgency.FRAME, NOW_S - 0.01),
        slot(1, Urgency.ANSWER, NOW_S - 0.02),
        slot(2, Urgency.FRAME, NOW_S - 0.2),
        slot(3, Urgency.ANSWER, NOW_S - 0.3),
        slot(4, Urgency.BACKGROUND, NOW_S),
    ]
    assert chosen(*slots) == [3, 2, 1, 0]
    assert chosen(*slots, max_batch=2) == [3, 2]
    assert chosen(slots[4]) == [4]


@pytest.mark.parametrize(
    ("phase", "ends_s", "expected"),
    [
        (Phase.IDLE, None, Urgency.BACKGROUND),
        (Phase.LISTENING, None, Urgency.FRAME),
        (Phase.TRANSCRIBING, None, Urgency.ANSWER),
        (Phase.REPLYING, None, Urgency.ANSWER),
        (Phase.SPEAKING, None, Urgency.ANSWER),
        (Phase.SPEAKING, 1.0, Urgency.PLAYOUT),
    ],
)
def test_urgency_follows_the_phase(phase: Phase, ends_s: float | None, expected: Urgency) -> None:
    """Everything between the end of a turn and the first audio is awaited by someone."""
    assert urgency(phase, Playout(ends_s)) is expected


def test_an_answer_shares_its_ticks_with_who_would_be_late() -> None:
    """Frames and replies with time to spare wait for it; when one frame goes, all of them do."""
    answer = slot(0, Urgency.ANSWER)
    fresh, old = slot(1, Urgency.FRAME), slot(2, Urgency.FRAME, NOW_S - 0.06)
    poor = slot(3, Urgency.PLAYOUT, ends_s=NOW_S + 0.06)
    assert chosen(answer, fresh, poor) == [0]
    assert chosen(answer, fresh, old, poor) == [0, 2, 1]
    assert chosen(fresh, poor) == [3, 1]


def test_only_one_history_is_caught_up_with_in_a_tick() -> None:
    """Whoever joins with a long past takes its turns between the others', the most urgent first."""
    joining = [slot(index, Urgency.BACKGROUND, NOW_S - index / 100) for index in range(3)]
    for each in joining:
        each.is_behind = True
    assert chosen(*joining, slot(3, Urgency.FRAME, NOW_S - 0.05)) == [3]
    assert chosen(*joining) == [2]


def test_who_has_much_to_read_delays_no_answer() -> None:
    """Its ticks are long: it has one now and then, and whoever is due has it as well."""
    reader = slot(0, Urgency.CATCH_UP, NOW_S - 0.4)
    reader.is_behind = True
    answer, rich = slot(1, Urgency.ANSWER), slot(2, Urgency.PLAYOUT, ends_s=NOW_S + 0.9)
    assert chosen(reader, answer, rich) == [1]
    assert chosen(reader, rich) == [0, 2]
    reader.waiting_since_s = NOW_S - 0.6
    assert chosen(reader, answer, rich) == [0, 1, 2]


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.SPEAKING])
def test_whatever_it_is_read_for(phase: Phase) -> None:
    """A reply that has much to read before its first word is no more urgent than other reading."""
    for is_awaited in (False, True):
        work = urgency(phase, Playout(), is_awaited=is_awaited, is_far_behind=True)
        assert work is Urgency.CATCH_UP
    assert urgency(Phase.SPEAKING, Playout(), is_far_behind=True) is Urgency.CATCH_UP
    assert urgency(Phase.SPEAKING, Playout(1.0), is_far_behind=True) is Urgency.PLAYOUT


WORKS = st.sampled_from([Urgency.ANSWER, Urgency.FRAME, Urgency.BACKGROUND])
TICK_S = 0.02


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(WORKS, st.floats(0, 2), st.booleans()), max_size=30),
    st.integers(1, 6),
)
def test_whoever_joins_nobody_starves(
    arrivals: list[tuple[Urgency, float, bool]], num_speakers: int
) -> None:
    """All that comes is done, and replies in progress never run dry for those who join.

    A tick takes as long as the widest horizon allows for; the joiners' work comes all at once.
    """
    config = EngineConfig(ahead_ms=400, answer_horizon_ms=40)
    scheduler = Scheduler(config, frame_s=0.08)
    speakers = [
        slot(index, Urgency.PLAYOUT, ends_s=NOW_S + 0.2 + index / 50)
        for index in range(num_speakers)
    ]
    coming = sorted(arrivals, key=lambda arrival: arrival[1])
    waiting: list[Slot] = []
    now_s, done = NOW_S, 0
    while now_s < NOW_S + 6:
        while coming and NOW_S + coming[0][1] <= now_s:
            work, after_s, is_behind = coming.pop(0)
            waiting.append(slot(10 + len(coming), work, NOW_S + after_s))
            waiting[-1].is_behind = is_behind and work is Urgency.BACKGROUND
        served = scheduler.choose([*speakers, *waiting], now_s)
        now_s += TICK_S
        for each in served:
            if each.work is Urgency.PLAYOUT:
                assert each.playout.add(0.08, now_s) is False
        done += sum(each in waiting for each in served)
        waiting = [each for each in waiting if each not in served]
    assert done == len(arrivals)
    assert not waiting
