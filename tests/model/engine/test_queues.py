"""Sessions wait in queues of their own, and have their turns."""

from itertools import count

import pytest

from model.engine.queues import Queues
from model.errors import OverloadedError
from model.messages import AppendText, Cancel, Close, Command, Open


def _text(session_id: str, number: int, num_chars: int = 1) -> Command:
    return AppendText(session_id, f"i{number}", "user", "w" * num_chars)


def test_a_flood_does_not_come_before_others() -> None:
    """Whoever has little to do has it done in the first turns; the flood keeps its order."""
    queues, flood = Queues(4096), [_text("a", number) for number in range(4000)]
    for command in flood:
        queues.put(command)
    queues.put(_text("b", 0))
    first = queues.turns()
    assert [turn.session_id for turn in first] == ["a", "b"]
    assert len(first[0].commands) <= 16
    taken = [*first[0].commands]
    while queues:
        (turn,) = queues.turns()
        assert len(turn.commands) <= 16
        taken += turn.commands
    assert taken == flood


def test_long_texts_are_told_in_slices() -> None:
    """A turn ends with the text that fills it, however few commands that are."""
    queues = Queues(4096)
    for number in range(4):
        queues.put(_text("a", number, 64 * 1024))
        queues.put(_text("b", number, 6_000))
    assert [len(turn.commands) for turn in queues.turns()] == [1, 3]


def test_each_has_its_own_bound() -> None:
    """One that is full is refused work, never relief; others have all of theirs."""
    queues = Queues(8)
    for number in count():
        try:
            queues.put(_text("a", number))
        except OverloadedError:
            break
    assert number == 8
    queues.put(Cancel("a", 1))
    for number in range(8):
        queues.put(_text("b", number))
    queues.put(Close("a"))
    queues.put(Open("a", "amber"))
    turn, _ = queues.turns()
    assert (turn.commands, turn.num_dropped) == ([Close("a")], 9)
    assert queues.turns()[0].commands == [Open("a", "amber")]


def test_who_takes_a_place_is_opened_after_it_is_free() -> None:
    """Whatever waited before: the last session is closed before the next one is opened."""
    queues = Queues(4096)
    queues.put(Close("new"))
    for number in range(100):
        queues.put(_text("old", number))
    queues.turns()
    queues.put(Close("old"))
    queues.put(Open("new", "amber"))
    order: list[Command] = []
    while queues:
        order += [command for turn in queues.turns() for command in turn.commands]
    assert order == [Close("old"), Open("new", "amber")]


@pytest.mark.parametrize("num_commands", [1, 500])
def test_nothing_is_left(num_commands: int) -> None:
    """A queue that is empty is forgotten."""
    queues = Queues(None)
    for number in range(num_commands):
        queues.put(_text("a", number))
    while queues:
        queues.turns()
    assert not queues._queues
