"""Which slot has which pages of memory. Pure accounting: no tensors, no steps.

A page is free, or some slots have it; `PagePool` counts how many. `PageTables` says which page each
part of a slot's memory is in. Pages may be shared; one that is about to be written is made the
slot's own first. The rules that hold at any time:

    a page that a table names is not free, and its count is how often tables name it;
    every other page is free, once;
    a slot writes only to pages whose count is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from model.errors import OutOfPagesError

# A worked example: 4 pages, slots of 2 parts.
#
#                              table of A    table of B    counts of pages 0-3
#     A owns part 0            [0, -]        [-, -]        1 0 0 0
#     A owns part 1            [0, 1]        [-, -]        1 1 0 0
#     B forks A: `share`       [0, 1]        [0, 1]        2 2 0 0
#     B owns part 1            [0, 1]        [0, 3]        2 1 0 1    the store copies page 1 to 3
#     A is cleared             [-, -]        [0, 3]        1 0 0 1
#
# B got page 3 and not 2, because slot B's own place for part 1 is 1 * 2 + 1 = 3 (`_wish`): where
# nothing is shared, a slot's pages lie one after the other, and a CPU reads them as one piece.
#
# Source: Kwon et al. 2023, "Efficient memory management for large language model serving with
# PagedAttention", section 4.4 (sharing, and a copy at the first write).

NO_PAGE = -1
PADDING = -1  # the slot of rows that only fill a batch up


class PagePool:
    """Hand out pages and count who has them.

    Args:
        num_pages: pages 0 to `num_pages - 1`.
    """

    __slots__ = ("_free", "_refs")

    def __init__(self, num_pages: int) -> None:
        self._refs = [0] * num_pages
        # A dict keeps an order and gives up any member at once.
        self._free = dict.fromkeys(range(num_pages))

    @property
    def num_pages(self) -> int:
        """All pages."""
        return len(self._refs)

    @property
    def num_free(self) -> int:
        """Pages that nobody has."""
        return len(self._free)

    def refs(self, page: int) -> int:
        """Count how many times `page` is in use."""
        return self._refs[page]

    def take(self, wish: int) -> int:
        """Hand out a free page: `wish` if that is free, else any.

        Raises:
            OutOfPagesError: there is none.
        """
        if not self._free:
            raise OutOfPagesError(f"all {self.num_pages} pages are in use")
        if wish in self._free:
            del self._free[wish]
            page = wish
        else:
            page, _ = self._free.popitem()
        self._refs[page] = 1
        return page

    def share(self, page: int) -> None:
        """Count one more user of a `page` that is in use."""
        assert self._refs[page] > 0, page
        self._refs[page] += 1

    def release(self, page: int) -> None:
        """Count one less who has `page`; with the last it is free."""
        assert self._refs[page] > 0, page
        self._refs[page] -= 1
        if not self._refs[page]:
            self._free[page] = None


class PageTables:
    """Know the pages of every slot.

    Args:
        num_slots: slots, which start empty.
        pages_per_slot: parts that a slot's memory consists of.
        num_pages: pages for all slots together.

    Attributes:
        pool: of the pages.
        rows: page ids [slots][pages_per_slot], `NO_PAGE` where there is none. Only to be read.
    """

    __slots__ = ("_array", "pool", "rows")

    def __init__(self, num_slots: int, pages_per_slot: int, num_pages: int) -> None:
        self.pool = PagePool(num_pages)
        self.rows = [[NO_PAGE] * pages_per_slot for _ in range(num_slots)]
        # The same, for whoever reads many rows at once.
        self._array = np.full((num_slots, pages_per_slot), NO_PAGE, np.int32)

    def of(self, slots: Sequence[int]) -> np.ndarray:
        """Return the rows of some slots, int32 [n, pages_per_slot]; `PADDING` has no pages."""
        index = np.array(slots)
        rows: np.ndarray = self._array[index]
        rows[index == PADDING] = NO_PAGE
        return rows

    def num_missing(self, slot: int, parts: Iterable[int]) -> int:
        """Count the pages that `own` would take for different `parts` of a slot."""
        row, pool = self.rows[slot], self.pool
        return sum(row[part] == NO_PAGE or pool.refs(row[part]) > 1 for part in parts)

    def own(self, slot: int, part: int) -> tuple[int, int] | None:
        """Make a part the slot's own, to be written to.

        Returns:
            None if it was already; else its new page and the page whose contents belong there,
            `NO_PAGE` for none.

        Raises:
            OutOfPagesError: there is no page; nothing has changed then.
        """
        # A page that others read as well must not change under them: whoever writes gets a copy.
        row = self.rows[slot]
        old = row[part]
        if old != NO_PAGE and self.pool.refs(old) == 1:
            return None
        page = self.pool.take(self._wish(slot, part))
        if old != NO_PAGE:
            self.pool.release(old)
        row[part] = self._array[slot, part] = page
        return page, old

    def _wish(self, slot: int, part: int) -> int:
        """Say which page makes the slot's memory one piece: of its place, else a neighbour's."""
        row, pool = self.rows[slot], self.pool
        # Fragmentation is only a matter of speed, so this is a wish and no promise.
        after = row[part + 1] if part + 1 < len(row) else NO_PAGE
        before = row[part - 1] if part else NO_PAGE
        places = [slot * len(row) + part]
        places += [after - 1] * (after != NO_PAGE) + [before + 1] * (before != NO_PAGE)
        return next((p for p in places if 0 <= p < pool.num_pages and not pool.refs(p)), NO_PAGE)

    def share(self, source: int, target: int) -> None:
        """Let `target`, which has nothing, have the pages of `source`."""
        assert all(page == NO_PAGE for page in self.rows[target]), target
        for page in self.rows[source]:
            if page != NO_PAGE:
                self.pool.share(page)
        self.rows[target] = list(self.rows[source])
        self._array[target] = self._array[source]

    def release(self, slot: int, parts: Iterable[int]) -> None:
        """Take the slot's pages of some parts from it."""
        row = self.rows[slot]
        for part in parts:
            if row[part] != NO_PAGE:
                self.pool.release(row[part])
                row[part] = self._array[slot, part] = NO_PAGE

    def clear(self, slot: int) -> None:
        """Take all the slot's pages from it."""
        self.release(slot, range(len(self.rows[slot])))
