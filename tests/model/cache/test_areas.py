"""Where the steps of a slot lie: no two of the ones that matter in one column."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.cache.areas import Areas, Held

SMALL = st.integers(0, 40)


def held(prefix: int, text: int, audio: int, window: int) -> Held:
    """Return counts of which the newest `window` of each ring are visible."""
    return Held(prefix, text, min(text, window), audio, min(audio, window))


def columns(ranges: list[tuple[int, int]]) -> list[int]:
    """Return every column in some ranges."""
    return [column for start, stop in ranges for column in range(start, stop)]


@given(
    page_steps=st.integers(1, 5),
    prefix=st.integers(0, 4),
    text=SMALL,
    audio=SMALL,
    window=st.integers(1, 9),
)
def test_what_is_seen_is_where_it_was_written(
    page_steps: int, prefix: int, text: int, audio: int, window: int
) -> None:
    """The ranges hold the columns of the visible steps, each once, inside the live range."""
    areas = Areas.around(window + 2, 4, window + 2, page_steps)
    now = held(prefix, text, audio, window)
    expected = [areas.prefix_column(i) for i in range(prefix)]
    expected += [areas.text_column(i) for i in range(text - now.text_seen, text)]
    expected += [areas.audio_column(i) for i in range(audio - now.audio_seen, audio)]
    assert sorted(columns(areas.seen(now))) == sorted(set(expected)) == sorted(expected)
    start, stop = areas.live(now)
    assert all(start <= column < stop for column in expected)
    assert stop <= areas.num_pages * page_steps


@given(page_steps=st.integers(1, 5), text=SMALL, audio=SMALL, back=st.integers(0, 8))
def test_pages_that_are_given_back_hold_nothing(
    page_steps: int, text: int, audio: int, back: int
) -> None:
    """After a rewind every step that is left, and that the ring still has, is in a page."""
    areas = Areas.around(10, 4, 10, page_steps)
    high = held(3, text, audio, 8)
    now = held(2, max(text - back, 0), max(audio - back, 0), 8)
    gone = areas.parts_beyond(now, high)
    kept = [areas.prefix_column(i) for i in range(now.prefix)]
    kept += [areas.text_column(i) for i in range(max(text - areas.text, 0), now.text)]
    kept += [areas.audio_column(i) for i in range(max(audio - areas.audio, 0), now.audio)]
    assert not gone & {column // page_steps for column in kept}


def test_pages_that_steps_are_written_to() -> None:
    """Those of the new steps, and of a fork those that have begun and are not full."""
    areas = Areas.around(4, 2, 6, 2)
    assert (areas.text, areas.prefix, areas.audio, areas.num_pages) == (4, 2, 6, 6)
    assert areas.parts(held(0, 0, 0, 9), held(1, 1, 3, 9)) == {2, 1, 3, 4}
    assert areas.parts(held(2, 4, 7, 9), held(2, 5, 9, 9)) == {1, 3, 4}
    assert areas.parts_being_filled(held(1, 1, 3, 9)) == {2, 1, 4}
    assert areas.parts_being_filled(held(2, 2, 6, 9)) == set()


@pytest.mark.parametrize(("text", "prefix", "ranges"), [(0, 0, 2), (4, 0, 4), (0, 2, 3)])
def test_areas_that_are_not_there_take_no_ranges(text: int, prefix: int, ranges: int) -> None:
    """A model with one ring sees two ranges at most."""
    areas = Areas.around(text, prefix, 6, 2)
    now = Held(prefix, 0, 0, 3, 3)
    assert len(areas.seen(now)) == ranges
