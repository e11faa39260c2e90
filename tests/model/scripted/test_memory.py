"""What is remembered of a conversation."""

from __future__ import annotations

import pytest

from model.scripted.memory import Called, Memory, Note, Returned, Said, UserTurn


def spoken() -> Memory:
    """Return a memory of one reply: a word each 400 ms, 15 frames of 80 ms."""
    memory = Memory()
    memory.items += [UserTurn("hi", 4), Said("a", ["one", "two", "three"], [0, 400, 800], 15)]
    return memory


@pytest.mark.parametrize(
    ("heard_ms", "words", "num_frames"),
    [
        (80, "one", 1),
        (400, "one", 5),
        (401, "one two", 5),
        (800, "one two", 10),
        (1200, "one two three", 15),
        (9999, "one two three", 15),
    ],
)
def test_truncation_keeps_what_was_heard(heard_ms: int, words: str, num_frames: int) -> None:
    """Words that began, and whole frames."""
    memory = spoken()
    memory.truncate("a", heard_ms, 80)
    assert memory.last_reply == words
    assert memory.count_tokens() == (1 + len(words.split()), 4 + num_frames, 0)


@pytest.mark.parametrize("heard_ms", [0, 79])
def test_nothing_heard_was_never_said(heard_ms: int) -> None:
    """The whole reply is gone."""
    memory = spoken()
    memory.truncate("a", heard_ms, 80)
    assert memory.items == [UserTurn("hi", 4)]


def test_written_replies_go_as_a_whole_or_not_at_all() -> None:
    """They have no audio to stop in."""
    memory = Memory()
    memory.items.append(Said("a", ["one", "two"]))
    memory.truncate("a", 500, 80)
    assert memory.last_reply == "one two"
    memory.truncate("a", 0, 80)
    memory.truncate("a", 0, 80)
    assert memory.items == []


def test_history_tells_everything_in_order() -> None:
    """All kinds of items, as applications see them in replies."""
    memory = spoken()
    memory.items += [Note("be kind"), Called("f", '{"x":1}'), Returned("f", "sunny")]
    assert memory.history == (
        'user: hi; assistant: one two three; system: be kind; call: f {"x":1}; returned: f sunny'
    )
    assert memory.num_turns == 1
    assert (memory.last_user, memory.last_reply) == ("hi", "one two three")


def test_what_functions_returned_is_answered_until_the_user_speaks() -> None:
    """Several outputs come oldest first."""
    memory = spoken()
    memory.items += [Returned("f", "1"), Returned("g", "2")]
    assert [item.output for item in memory.returned] == ["1", "2"]
    memory.items.append(UserTurn("thanks"))
    assert memory.returned == []
