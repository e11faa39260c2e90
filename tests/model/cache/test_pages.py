"""Who has which pages: none is lost, none has two owners who may write."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.cache.pages import NO_PAGE, PADDING, PagePool, PageTables
from model.errors import OutOfPagesError

SLOTS, PARTS = 4, 5
ACTIONS = st.tuples(
    st.sampled_from(["own", "fork", "clear", "release"]),
    st.integers(0, SLOTS - 1),
    st.integers(0, SLOTS - 1),
    st.integers(0, PARTS - 1),
)


def check(tables: PageTables) -> None:
    """Check the rules at the top of `model/cache/pages.py`."""
    pool = tables.pool
    named = Counter(page for row in tables.rows for page in row if page != NO_PAGE)
    assert {page: pool.refs(page) for page in named} == named
    unused = [page for page in range(pool.num_pages) if page not in named]
    assert all(pool.refs(page) == 0 for page in unused)
    assert pool.num_free == len(unused)
    everybody = [*range(SLOTS), PADDING]
    assert tables.of(everybody).tolist() == [*tables.rows, [NO_PAGE] * PARTS]


@given(num_pages=st.integers(1, 24), actions=st.lists(ACTIONS, max_size=60))
def test_pages_are_never_lost_nor_shared_in_writing(
    num_pages: int, actions: list[tuple[str, int, int, int]]
) -> None:
    """Whatever slots do, the rules hold; what fails changes nothing."""
    tables = PageTables(SLOTS, PARTS, num_pages)
    for action, slot, other, part in actions:
        before = [list(row) for row in tables.rows]
        match action:
            case "own":
                missing = tables.num_missing(slot, [part])
                try:
                    begun = tables.own(slot, part)
                except OutOfPagesError:
                    assert missing == 1
                    assert tables.pool.num_free == 0
                    assert tables.rows == before
                else:
                    page = tables.rows[slot][part]
                    assert tables.pool.refs(page) == 1
                    assert begun == ((page, before[slot][part]) if missing else None)
            case "fork" if slot != other:
                tables.clear(other)
                tables.share(slot, other)
                assert tables.rows[slot] == tables.rows[other] == before[slot]
            case "release":
                tables.release(slot, [part])
                assert tables.rows[slot][part] == NO_PAGE
            case _:
                tables.clear(slot)
                assert set(tables.rows[slot]) == {NO_PAGE}
        check(tables)


def test_a_slots_pages_follow_each_other() -> None:
    """As long as nobody else is in the way: at their places, or else next to each other."""
    tables = PageTables(3, 4, 11)
    for part in (2, 1, 3, 0):
        tables.own(1, part)
    assert tables.rows[1] == [4, 5, 6, 7]
    tables.own(0, 1)
    for part in (3, 2, 0, 1):  # its place is 8 to 11, of which the last is not there
        tables.own(2, part)
    assert tables.rows[2] == [8, 3, 9, 10]
    assert tables.rows[0] == [NO_PAGE, 1, NO_PAGE, NO_PAGE]
    tables.own(0, 2)
    tables.own(0, 3)
    assert tables.rows[0] == [NO_PAGE, 1, 2, 0]


def test_the_wish_is_only_a_wish() -> None:
    """Another page does as well, until there is none."""
    pool = PagePool(2)
    assert pool.take(0) == 0
    assert pool.take(0) == 1
    with pytest.raises(OutOfPagesError, match="all 2 pages are in use"):
        pool.take(1)
    pool.release(0)
    assert pool.take(1) == 0
