"""The log of a conversation: bounded, exact about what was fed, and open to changes of the past."""

from __future__ import annotations

import numpy as np
import pytest

from model.cache.state import Kind
from model.turns.history import AssistantItem, History, StepBlock

PREFIX = (2, 9)


def make(num_steps: int, max_steps: int = 100) -> History:
    """Return a history whose steps after the prefix are text pieces 100, 101 and so on."""
    history = History(PREFIX, num_codebooks=2, max_steps=max_steps)
    for number in range(num_steps):
        history.append(Kind.TEXT, 100 + number)
    return history


def texts(history: History, start: int = 2) -> list[int]:
    """Return the pieces from `start` on."""
    return history.block(start, len(history)).text.tolist()


def text_block(*pieces: int) -> StepBlock:
    """Return text-only steps."""
    n, absent = len(pieces), np.full((len(pieces), 2), -1)
    return StepBlock(
        np.array(pieces, dtype=np.int64),
        np.full(n, int(Kind.TEXT)),
        absent,
        absent,
        np.full(n, None),
    )


def test_steps_come_back_as_they_went_in() -> None:
    """Codes and kinds are kept, absent codes stay absent."""
    history = make(0)
    history.append(Kind.LISTEN, 0, user=np.array([3, 1023]))
    history.append(Kind.SPEAK, 5, assistant=np.array([7, -1]))
    block = history.block(0, len(history))
    assert block.kind.tolist() == [Kind.PREFIX, Kind.PREFIX, Kind.LISTEN, Kind.SPEAK]
    assert block.user.tolist() == [[-1, -1], [-1, -1], [3, 1023], [-1, -1]]
    assert block.assistant.tolist()[2:] == [[-1, -1], [7, -1]]
    assert history.count_steps() == (2, 2, 0)


def test_full_log_drops_its_oldest_but_keeps_its_prefix() -> None:
    """Indices go on counting; what is dropped cannot be asked for; a rebuild counts anew."""
    history = make(50, max_steps=20)
    history.fed = len(history)
    assert len(history) == 52
    assert history.oldest > 30
    assert texts(history, history.oldest)[-3:] == [147, 148, 149]
    with pytest.raises(AssertionError):
        history.block(10, 12)
    kept = texts(history, history.oldest)
    delta = history.rebuild()
    assert (history.fed, history.oldest) == (0, 2)
    assert len(history) == 52 + delta
    assert history.block(0, len(history)).text.tolist() == [*PREFIX, *kept]


def test_items_go_with_their_steps() -> None:
    """An item whose first step is dropped or cut off can no longer be changed."""
    history = make(0, max_steps=20)
    for number in range(10):
        history.items.append(AssistantItem(f"a{number}", len(history), is_audio=True))
        for _ in range(3):
            history.append(Kind.TEXT, 100)
    assert history.items[0].start >= history.oldest
    history.cut(history.items[-1].start)
    assert history.items[-1].item_id == "a8"


@pytest.mark.parametrize(
    ("pieces", "fed"),
    [((101, 102), 3 + 2), ((101, 500, 102), 3 + 1), ((), 3), ((500, 101, 102, 103), 3)],
)
def test_replaced_item_moves_what_follows(pieces: tuple[int, ...], fed: int) -> None:
    """Only what differs has to be fed again, and later items know their new places."""
    history = make(8)  # 100 to 107 at indices 2 to 9
    item = AssistantItem("a", 3, is_audio=True, stop=6)
    later = AssistantItem("b", 7, is_audio=True, speak=8, stop=10)
    history.items.extend([item, later])
    history.fed = len(history)
    delta = history.replace(item, text_block(*pieces))
    assert delta == len(pieces) - 3
    assert texts(history) == [100, *pieces, 104, 105, 106, 107]
    assert history.fed == fed
    assert (later.start, later.speak, later.stop) == (7 + delta, 8 + delta, 10 + delta)
    assert [i.item_id for i in history.items] == (["a", "b"] if pieces else ["b"])


def test_same_item_changes_nothing() -> None:
    """Replacing an item by itself costs no step."""
    history = make(8)
    item = AssistantItem("a", 3, is_audio=True, stop=6)
    history.items.append(item)
    history.fed = len(history)
    assert history.replace(item, history.block(3, 6)) == 0
    assert history.fed == len(history)
