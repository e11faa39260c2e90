"""Who is served: the earliest deadline, and nobody who can wait while others cannot."""

from __future__ import annotations

import pytest
import torch

from model.dialogue.phase import Phase
from model.engine.config import EngineConfig
from model.engine.scheduler import Scheduler, urgency
from model.engine.slots import Playout, Slot, Urgency

NOW_S = 50.0


def slot(
    index: int, work: Urgency | None, since_s: float = NOW_S, ends_s: float | None = None
) -> Slot:
    """Return a slot as the scheduler sees it."""
    program = None  # never looked at
    return Slot(index, program, torch.Generator(), Playout(ends_s), work, since_s)  # type: ignore[arg-type]


def chosen(*slots: Slot, **settings: int) -> list[int]:
    """Return the indices of those served at `NOW_S`, in order."""
    scheduler = Scheduler(EngineConfig(**settings), frame_s=0.08)
    return [s.index for s in scheduler.choose(slots, NOW_S)]


def test_first_audio_goes_before_playout() -> None:
    """A reply with audio in hand waits for one that has none, until it runs short itself."""
    first = slot(0, Urgency.ANSWER)
    rich = slot(1, Urgency.PLAYOUT, ends_s=NOW_S + 0.5)
    poor = slot(2, Urgency.PLAYOUT, ends_s=NOW_S + 0.05)
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
