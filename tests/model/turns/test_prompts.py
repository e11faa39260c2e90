"""Which beginnings are remembered."""

from __future__ import annotations

from model.turns.prompts import PromptCache


def test_the_one_not_asked_for_longest_goes_first() -> None:
    """Asking counts as use, and every slot is used before one is used again."""
    prompts = PromptCache([7, 9])
    slots = {prompts.put(b"a"), prompts.put(b"b")}
    assert slots == {7, 9}
    of_b = prompts.get(b"b")
    assert prompts.get(b"a") in slots
    assert prompts.put(b"c") == of_b
    assert prompts.get(b"b") is None
    assert len(prompts) == 2


def test_what_is_dropped_or_removed_makes_room() -> None:
    """Its slot is the next one's."""
    prompts = PromptCache([3])
    assert prompts.drop() is None
    prompts.put(b"a")
    assert prompts.drop() == 3
    assert prompts.put(b"b") == 3
    prompts.remove(b"b")
    assert len(prompts) == 0
    assert prompts.put(b"c") == 3


def test_without_slots_nothing_is_remembered() -> None:
    """And nothing is wrong with that."""
    prompts = PromptCache([])
    assert prompts.put(b"a") is None
    assert prompts.get(b"a") is None
