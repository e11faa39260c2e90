"""Audio reaches the engine at most a minute ahead of real time, and everything in order."""

import numpy as np
import pytest

from model.messages import (
    AppendAudio,
    Cancel,
    ClearAudio,
    Close,
    Command,
    CommitAudio,
    Respond,
    Taken,
)
from server.session.intake import Intake

RATE_HZ = 16_000


class Clock:
    """Stand still until told."""

    now_s = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


@pytest.fixture
def taken() -> list[Command]:
    """Give what the engine was given."""
    return []


@pytest.fixture
def clock() -> Clock:
    """Give a clock."""
    return Clock()


@pytest.fixture
def intake(taken: list[Command], clock: Clock) -> Intake:
    """Give an intake that leads to `taken`."""
    return Intake(taken.append, RATE_HZ, clock)


def _audio(seconds: float) -> AppendAudio:
    return AppendAudio("s", np.zeros(int(seconds * RATE_HZ), dtype=np.float32))


def _seconds(commands: list[Command]) -> float:
    return sum(len(c.pcm) for c in commands if isinstance(c, AppendAudio)) / RATE_HZ


def test_who_starts_over_is_told_at_once(intake: Intake, taken: list[Command]) -> None:
    """What a closed session had in hand does not count against what the next one is told."""
    intake.put(_audio(100))
    assert intake.waiting_s > 0
    taken.clear()
    intake.put(Close("s"))
    intake.put(_audio(60))
    assert _seconds(taken) == 60


def _let_pass(clock: Clock, intake: Intake) -> None:
    """Let the time pass that everything needs."""
    while (wait_s := intake.release()) is not None:
        clock.now_s += wait_s


def test_real_time_passes_straight_through(
    intake: Intake, taken: list[Command], clock: Clock
) -> None:
    """A live microphone never waits."""
    for _ in range(5_000):
        intake.put(_audio(0.02))
        intake.taken(Taken("s", 1))
        clock.now_s += 0.02
        assert intake.waiting_s == 0
    assert len(taken) == 5_000


def test_a_flood_waits_in_order(intake: Intake, taken: list[Command], clock: Clock) -> None:
    """Five minutes at once are passed on as time goes by, what follows them after them."""
    intake.put(_audio(300))
    intake.put(CommitAudio("s", "item"))
    intake.put(Respond("s", 1, "reply"))
    assert _seconds(taken) == 70  # a minute, and the piece that crosses it
    assert intake.waiting_s == 230
    clock.now_s += 15
    assert intake.release() == pytest.approx(5)
    assert _seconds(taken) == 80
    _let_pass(clock, intake)
    assert _seconds(taken) == 300
    assert [type(command) for command in taken[-2:]] == [CommitAudio, Respond]


def test_clearing_forgets_what_waits(intake: Intake, taken: list[Command], clock: Clock) -> None:
    """Audio that is to be forgotten need not be heard first."""
    intake.put(_audio(300))
    intake.put(ClearAudio("s"))
    assert intake.waiting_s == 0
    assert isinstance(taken[-1], ClearAudio)
    clock.now_s += 1_000
    intake.put(CommitAudio("s", "item"))
    assert _seconds(taken) == 70


def test_cancel_does_not_wait(intake: Intake, taken: list[Command], clock: Clock) -> None:
    """A running response is cancelled at once; one that still waits is never asked for."""
    intake.put(Respond("s", 1, "first"))
    intake.put(_audio(300))
    intake.put(Respond("s", 2, "second"))
    intake.put(Cancel("s", 1))
    assert taken[-1] == Cancel("s", 1)
    intake.put(Cancel("s", 2))
    _let_pass(clock, intake)
    assert [c.turn for c in taken if isinstance(c, Respond | Cancel)] == [1, 1]


def test_close_forgets_everything(intake: Intake, taken: list[Command], clock: Clock) -> None:
    """Nothing follows a close."""
    intake.put(_audio(300))
    intake.put(Close("s"))
    assert taken[-1] == Close("s")
    clock.now_s += 1_000
    assert intake.release() is None
    assert taken[-1] == Close("s")
