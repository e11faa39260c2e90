"""Plan one call: where its steps are written in a store, and what each of them sees.

`LMState` counts steps and says, in the columns of each slot, what a row writes and sees (`Row`).
Here that becomes what attention reads: for the kernels one table of pages and ranges (`PagedPlan`),
for a CPU views of the store with a mask (`Run`).

Source: Kwon et al. 2023, "Efficient memory management for large language model serving with
PagedAttention", section 4.1 (block tables); here of rings, so that a call may last for hours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kernels.attention import op
from model.cache.ledger import Row
from model.cache.pages import NO_PAGE
from model.cache.store import LayerMemory, PagedLayer, Run, Store, ViewedLayer

# A worked example: two rows of one step each, pages of 4 columns. Slot A has pages [6, 7] and takes
# its 6th step; slot B has pages [2, -1] and takes its 2nd. Both are single rings of 8 columns, and
# see the newest 4.
#
#     row   newest column   page, entry          column of the store   ranges seen
#     A     5               table 7, entry 1     7 * 4 + 1 = 29        [2, 6)
#     B     1               table 2, entry 1     2 * 4 + 1 = 9         [0, 2)
#
#     columns [29, 9]    table [[6, 7], [2, -1]]    spans [[[2, 6], [0, 0]], [[0, 2], [0, 0]]]
#
# Four steps later A has taken 10: its newest column is 9 % 8 = 1, and the newest 4 are ordinals
# 6-9, which lie in columns 6, 7, 0, 1. That is two ranges, [6, 8) and [0, 2), hence two places in
# `spans`.
#
# The same on a CPU. A's pages 6 and 7 follow each other in the store, so its columns 2-5 are the
# view of the store from column 6 * 4 + 2 = 26 on, and nothing is copied. Rows whose views are
# equally far apart are one view with a stride, and one attention (`_runs`). Were A's pages [6, 3],
# its columns would be gathered by an index instead, with the same numbers.
#
# A row without a session (padding) has no pages, sees nothing, and writes to the waste column,
# which nobody reads. So a batch of any size has tensors of one shape.


@dataclass(frozen=True, slots=True, eq=False)
class PagedPlan:
    """Describe a call to `kernels.attention.op`, in one tensor.

    A captured graph reads the tensors of the plan that it was captured with; `take` gives them
    what another call of the same shape has planned, in one copy.

    Attributes:
        packed: int32, all of the following.
        columns: int32 [n * T], columns of the store that the steps are written to.
        table: int32 [n, pages_per_slot].
        spans: int32 [n, T, ranges, 2].
    """

    packed: Tensor
    columns: Tensor
    table: Tensor
    spans: Tensor

    @classmethod
    def of(cls, rows: Sequence[Row], table: np.ndarray, store: Store) -> PagedPlan:
        """Plan a call of `rows`, whose pages are also `table`: int32 [n, pages_per_slot]."""
        spans = np.array([row.seen for row in rows], np.int32)  # [n, T, ranges, 2]
        columns = np.array(_store_columns(rows, store), np.int32)  # [n * T]
        return cls._packed(columns, table, spans, store)

    @classmethod
    def of_rings(
        cls, held: np.ndarray, window: int, size: int, table: np.ndarray, store: Store
    ) -> PagedPlan:
        """Plan a call of one step a row, each row's slot being one ring.

        Args:
            held: int [n], steps that a ring has taken, the new one included; 0 for nobody's.
            window: newest steps that are seen.
            size: columns of a ring.
            table: int32 [n, pages_per_slot].
            store: of the pages.
        """
        # Step `held - 1` is the newest. Its page is looked up as attention will: column //
        # page_steps.
        newest = (held - 1) % size
        page = table[np.arange(len(table)), newest // store.page_steps]  # [n]
        columns = page * store.page_steps + newest % store.page_steps  # [n]
        columns = np.where(held > 0, columns, store.waste).astype(np.int32)
        # The window ends at the newest step. Where it began before the ring's end and went on at
        # its start, it is two ranges: [start, size) and [0, stop).
        start, stop = (held - np.minimum(held, window)) % size, newest + 1
        is_split = start >= stop  # [n]
        spans = np.zeros((len(held), 1, 2, 2), np.int32)
        spans[:, 0, 0, 0], spans[:, 0, 0, 1] = start, np.where(is_split, size, stop)
        spans[:, 0, 1, 1] = np.where(is_split, stop, 0)
        spans[held == 0] = 0
        return cls._packed(columns, table, spans, store)

    @classmethod
    def _packed(
        cls, columns: np.ndarray, table: np.ndarray, spans: np.ndarray, store: Store
    ) -> PagedPlan:
        # One tensor, one copy to the device: three small copies would cost three times as much.
        parts = (columns, table, spans)
        packed = torch.from_numpy(np.concatenate([part.ravel() for part in parts]))
        packed = packed.to(store.kv.device)
        pieces = torch.split(packed, [part.size for part in parts])
        return cls(packed, *(p.view(part.shape) for p, part in zip(pieces, parts, strict=True)))

    def take(self, other: PagedPlan) -> None:
        """Let this plan's tensors say what `other` does, in place."""
        assert self.spans.shape == other.spans.shape, (self.spans.shape, other.spans.shape)
        self.packed.copy_(other.packed)


def paged_layers(plan: PagedPlan, store: Store, backend: op.Backend) -> list[LayerMemory]:
    """Return what each layer of `store` reads and writes with `plan`."""
    return [
        PagedLayer(
            store.dtype, kv, scale, store.page_steps, plan.columns, plan.table, plan.spans, backend
        )
        for kv, scale in store.layers
    ]


def viewed_layers(rows: Sequence[Row], store: Store) -> list[LayerMemory]:
    """Return what each layer of `store` reads and writes in a call of `rows`."""
    columns = torch.tensor(_store_columns(rows, store), device=store.kv.device)
    runs = _runs(rows, store)
    views = zip(*(run.views(store) for run in runs), strict=True)
    return [
        ViewedLayer(store.dtype, kv, scale, columns, list(zip(runs, found, strict=True)))
        for (kv, scale), found in zip(store.layers, views, strict=True)
    ]


def _store_columns(rows: Sequence[Row], store: Store) -> list[int]:
    """Return the columns of the store that the steps are written to, row by row."""
    size = store.page_steps
    return [
        store.waste if c is None else row.pages[c // size] * size + c % size
        for row in rows
        for c in row.columns
    ]


def _runs(rows: Sequence[Row], store: Store) -> list[Run]:
    """Group neighbouring rows that can be read together.

    These are in the same pages of their slots, so that no row's view reaches into pages that are
    not its own, and their slots are equally far apart. Whether pages lie in one piece changes
    where they are read from and not what is computed.
    """
    # Rows join a run as long as each starts one stride after the one before it.
    size = store.page_steps
    spots = [_spot(row, size) for row in rows]
    runs, begin = [], 0
    for stop in range(1, len(rows) + 1):
        if stop < len(rows) and _go_together(spots[begin : stop + 1]):
            continue
        runs.append(_run(slice(begin, stop), rows[begin:stop], spots[begin:stop], store))
        begin = stop
    return runs


@dataclass(frozen=True, slots=True)
class _Spot:
    """Say where the live pages of a row are: parts [first, last] of its slot, from `page` on.

    `page` is None if they do not follow each other in the store.
    """

    first: int
    last: int
    page: int | None


def _spot(row: Row, size: int) -> _Spot | None:
    start, stop = row.live
    if start >= stop:
        return None
    first, last = start // size, (stop - 1) // size
    pages = row.pages[first : last + 1]
    page = pages[0]
    is_one_piece = page != NO_PAGE and list(pages) == list(range(page, page + len(pages)))
    return _Spot(first, last, page if is_one_piece else None)


def _go_together(spots: Sequence[_Spot | None]) -> bool:
    """Tell whether the last of some rows can be read with the others, which can be."""
    *_, one, two = spots
    if one is None or two is None:
        return one is two
    if one.page is None or two.page is None or (one.first, one.last) != (two.first, two.last):
        return False
    # Two rows define the stride; a third one has to keep it.
    zero = spots[-3] if len(spots) > 2 else None
    if zero is None:
        return two.page > one.page
    assert zero.page is not None
    return two.page - one.page == one.page - zero.page


def _run(where: slice, rows: Sequence[Row], spots: Sequence[_Spot | None], store: Store) -> Run:
    spot = spots[0]
    if spot is None:
        return Run(where, None)
    # The rows of a run are read from the first live column of any of them to the last of any: the
    # mask hides what is not a row's own.
    start, stop = min(row.live[0] for row in rows), max(row.live[1] for row in rows)
    mask = _mask(rows, start, stop).to(store.kv.device, store.dtype)
    size = store.page_steps
    if spot.page is None:
        index = _index(rows[0], start, stop, size).to(store.kv.device)
        return Run(where, mask, index=index)
    second = spots[1] if len(spots) > 1 else None
    stride = 0 if second is None or second.page is None else second.page - spot.page
    return Run(where, mask, spot.page * size + start - spot.first * size, stride * size)


def _mask(rows: Sequence[Row], start: int, stop: int) -> Tensor:
    mask = np.full((len(rows), 1, len(rows[0].seen), stop - start), -np.inf, np.float32)
    for of_row, row in zip(mask[:, 0], rows, strict=True):
        for of_step, ranges in zip(of_row, row.seen, strict=True):
            is_blind = True
            for first, last in ranges:
                if first < last:
                    of_step[first - start : last - start] = 0.0
                    is_blind = False
            if is_blind:  # what such a step computes is thrown away; it only has to stay finite
                of_step[row.live[0] - start] = 0.0
    return torch.from_numpy(mask)


def _index(row: Row, start: int, stop: int, size: int) -> Tensor:
    """Return where a slot's columns lie in the store. What is in no page is read elsewhere."""
    first, last = start // size, (stop - 1) // size
    pages = np.array(row.pages[first : last + 1])
    pages[pages == NO_PAGE] = max(pages)  # hidden by the mask, so any page of the slot's will do
    columns = (pages[:, None] * size + np.arange(size)).ravel()  # [pages * page_steps]
    return torch.from_numpy(columns[start - first * size : stop - first * size])
