"""Audio reaches the engine at most a minute before it is heard, and everything in order."""

import asyncio

import numpy as np
import pytest

from model.messages import (
    AppendAudio,
    AppendText,
    Cancel,
    CheckTurn,
    ClearAudio,
    Close,
    Command,
    CommitAudio,
    Respond,
    Taken,
    TurnChecked,
)
from server.session.intake import Intake

RATE_HZ = 16_000


@pytest.fixture
def taken() -> list[Command]:
    """Give what the engine was given."""
    return []


@pytest.fixture
def intake(taken: list[Command]) -> Intake:
    """Give an intake that leads to `taken`."""
    return Intake(taken.append, RATE_HZ)


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


def _hear(intake: Intake, taken: list[Command], seconds: float = 1e9) -> None:
    """Let the engine hear what it was given, up to a moment, and say so."""
    heard_s = 0.0
    for command in iter(taken):  # which grows meanwhile
        heard_s += _seconds([command])
        if heard_s > seconds:
            return
        if isinstance(command, CheckTurn):
            intake.answered(TurnChecked("s", command.key, is_finished=False))


def test_a_live_microphone_passes_straight_through(intake: Intake, taken: list[Command]) -> None:
    """It never waits, and the engine is seldom asked how far it is."""
    for _ in range(5_000):
        intake.put(_audio(0.02))
        intake.taken(Taken("s", 2))
        assert intake.waiting_s == 0
        _hear(intake, taken[-2:])
    assert _seconds(taken) == pytest.approx(100)
    assert sum(isinstance(command, CheckTurn) for command in taken) == 20


def test_a_flood_is_heard_as_fast_as_the_engine_can(intake: Intake, taken: list[Command]) -> None:
    """No clock holds it up: what is heard makes room for more, in order."""
    intake.put(_audio(300))
    intake.put(CommitAudio("s", "item"))
    intake.put(Respond("s", 1, "reply"))
    assert _seconds(taken) == 60
    assert intake.waiting_s == 240
    _hear(intake, [*taken], 20)
    assert _seconds(taken) == 80
    _hear(intake, taken)
    assert _seconds(taken) == 300
    assert [type(command) for command in taken[-2:]] == [CommitAudio, Respond]


def test_an_engine_that_does_not_hear_is_given_no_more(
    intake: Intake, taken: list[Command]
) -> None:
    """While it makes a reply that may not be interrupted, a bounded amount waits in it."""
    for _ in range(100):
        intake.put(_audio(1))
    assert _seconds(taken) == 60
    intake.answered(TurnChecked("s", "turn_1", is_finished=False))
    assert _seconds(taken) == 60, "somebody else's question says nothing"
    _hear(intake, taken)
    assert _seconds(taken) == 100


def test_clearing_forgets_what_waits(intake: Intake, taken: list[Command]) -> None:
    """Audio that is to be forgotten need not be heard first."""
    intake.put(_audio(300))
    intake.put(ClearAudio("s"))
    assert intake.waiting_s == 0
    assert isinstance(taken[-1], ClearAudio)
    intake.put(CommitAudio("s", "item"))
    assert _seconds(taken) == 60


def test_cancel_does_not_wait(intake: Intake, taken: list[Command]) -> None:
    """A running response is cancelled at once; one that still waits is never asked for."""
    intake.put(Respond("s", 1, "first"))
    intake.put(_audio(300))
    intake.put(Respond("s", 2, "second"))
    intake.put(Cancel("s", 1))
    assert taken[-1] == Cancel("s", 1)
    intake.put(Cancel("s", 2))
    _hear(intake, taken)
    assert [c.turn for c in taken if isinstance(c, Respond | Cancel)] == [1, 1]


def test_close_forgets_everything(intake: Intake, taken: list[Command]) -> None:
    """Nothing follows a close."""
    intake.put(_audio(300))
    intake.put(Close("s"))
    assert taken[-1] == Close("s")
    _hear(intake, taken)
    assert taken[-1] == Close("s")


def _text(number: int, num_chars: int = 1) -> AppendText:
    return AppendText("s", f"i{number}", "user", "w" * num_chars)


def test_no_more_is_sent_than_is_taken(intake: Intake, taken: list[Command]) -> None:
    """A flood waits here, in order, and goes on as the engine reports."""
    flood: list[Command] = [_text(number) for number in range(1_000)]
    for command in flood:
        intake.put(command)
    assert len(taken) == 256
    while len(taken) < len(flood):
        before = len(taken)
        intake.taken(Taken("s", 32))
        assert len(taken) == min(before + 32, len(flood))
    assert taken == flood


def test_long_texts_are_bounded_by_their_length(intake: Intake, taken: list[Command]) -> None:
    """Four of 64 KiB are on their way at a time; an edit makes void what waits here."""
    for number in range(20):
        intake.put(_text(number, 64 * 1024))
    assert len(taken) == 4
    intake.taken(Taken("s", 1))
    assert len(taken) == 5
    intake.put(Close("s"))
    assert taken[-1] == Close("s")
    intake.taken(Taken("s", 5))
    assert len(taken) == 6


async def test_who_floods_is_not_read(intake: Intake) -> None:
    """There is room again once the engine has taken enough, or is another one."""

    async def has_room() -> bool:
        try:
            async with asyncio.timeout(0):
                await intake.room()
        except TimeoutError:
            return False
        return True

    for number in range(256 + 2_048):
        intake.put(_text(number))
    assert await has_room()
    intake.put(_text(0))
    assert not await has_room()
    intake.taken(Taken("s", 1))
    assert await has_room()
    for _ in range(2_049):
        intake.put_aside(AppendText("s/resp_1", "i", "user", "w"))
    assert not await has_room()
    intake.forget()
    assert await has_room()


def test_many_small_appends_are_few_commands(intake: Intake, taken: list[Command]) -> None:
    """Audio that waits is joined: its samples are all there, in order."""
    intake.put(_audio(70))
    rng = np.random.default_rng(0)
    pcm = rng.standard_normal(16_000).astype(np.float32)
    for start in range(0, len(pcm), 10):
        intake.put(AppendAudio("s", pcm[start : start + 10]))
    assert intake.waiting_s == 11  # with the piece that is beyond a minute
    waiting = [c for c in intake._waiting if isinstance(c, AppendAudio)]
    assert len(waiting) == 3
    assert np.array_equal(np.concatenate([command.pcm for command in waiting[1:]]), pcm)
    assert _seconds(taken) == 60
