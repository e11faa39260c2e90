"""How a call reads pages: the same numbers wherever these lie, and however they are read."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.cache.ledger import Row
from model.cache.pages import NO_PAGE
from model.cache.plan import PagedPlan, paged_layers, viewed_layers
from model.cache.store import LayerMemory, MemoryConfig, PagedLayer, Store, ViewedLayer

SIZE, HEADS, DIM = 4, 2, 8


def make_store(seed: int = 0, num_pages: int = 16) -> Store:
    """Return one layer's pages, filled with noise."""
    store = Store(
        1,
        HEADS,
        DIM,
        num_pages=num_pages,
        config=MemoryConfig(page_steps=SIZE),
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    store.kv.normal_(generator=torch.Generator().manual_seed(seed))
    return store


def moved(store: Store, row: Row, pages: list[int]) -> Row:
    """Copy a row's pages to others; return the row with these."""
    contents = store.read([page for page in row.pages if page != NO_PAGE])
    store.write(pages, contents)
    places = iter(pages)
    elsewhere = [page if page == NO_PAGE else next(places) for page in row.pages]
    return Row(elsewhere, row.columns, row.seen, row.live)


def row(pages: list[int], stop: int, num_steps: int = 1) -> Row:
    """Return a row that writes its newest columns and sees a prefix and what is before them."""
    columns = list(range(stop - num_steps, stop))
    return Row(pages, [*columns], [((1, 3), (5, c + 1), (0, 0)) for c in columns], (1, stop))


def paged(rows: list[Row], store: Store) -> PagedPlan:
    """Plan a call for the kernels."""
    return PagedPlan.of(rows, np.array([row.pages for row in rows], np.int32), store)


def attend(rows: list[Row], store: Store, reading: str = "views") -> torch.Tensor:
    """Return what random queries find."""
    rng = torch.Generator().manual_seed(1)
    q = torch.randn((len(rows), len(rows[0].seen), 2 * HEADS, DIM), generator=rng)
    if reading == "views":
        (layer,) = viewed_layers(rows, store)
    else:
        (layer,) = paged_layers(paged(rows, store), store, "reference")
    return layer.attend(q)


def enter(layer: LayerMemory, new: torch.Tensor) -> None:
    """Store `new: [n, T, 2, HEADS, DIM]` without rotating it."""
    n, steps = new.shape[:2]
    queries = torch.zeros((n, steps, 2 * HEADS, DIM))
    rope = torch.ones((n, steps, 1, DIM // 2), dtype=torch.complex64)
    layer.enter(torch.cat((queries, new.flatten(2, 3)), dim=2), rope)


def num_runs(rows: list[Row], store: Store) -> int:
    """Count the pieces that attention is done in."""
    (layer,) = viewed_layers(rows, store)
    assert isinstance(layer, ViewedLayer)
    return len(layer.runs)


@pytest.mark.parametrize("num_steps", [1, 3])
@pytest.mark.parametrize("pages", [[7, 8, 9], [9, 8, 7], [5, 12, 6]])
def test_where_pages_lie_does_not_matter(pages: list[int], num_steps: int) -> None:
    """In one piece, backwards or scattered: the output is the same to the bit."""
    store = make_store()
    one = row([1, 2, 3], 11, num_steps)
    expected = attend([one], store)
    assert torch.equal(attend([moved(store, one, pages)], store), expected)


@pytest.mark.parametrize("num_steps", [1, 3])
def test_views_and_pages_mean_the_same(num_steps: int) -> None:
    """Rows of any length, with pages missing, shared, scattered, and one of nobody."""
    store = make_store()
    rows = [
        row([1, 2, 3], 11, num_steps),
        row([1, 5, 4], 10, num_steps),
        row([6, 7, NO_PAGE], 8, num_steps),
        Row([NO_PAGE] * 3, [None] * num_steps, [((0, 0),) * 3] * num_steps, (0, 0)),
    ]
    expected = attend(rows, store, "reference")
    torch.testing.assert_close(attend(rows, store), expected)
    assert not expected[3].any()


def test_rows_alike_are_read_together() -> None:
    """Slots in the same state whose pages are equally far apart; others by themselves."""
    store = make_store()
    rows = [row([first, first + 1, first + 2], 11) for first in (0, 4, 8)]
    assert num_runs(rows, store) == 1
    assert num_runs([*rows, row([11, 12, 13], 11)], store) == 2
    assert num_runs([rows[0], row([4, 5, NO_PAGE], 7), rows[2]], store) == 3
    assert num_runs([rows[1], rows[0]], store) == 2
    assert num_runs([rows[0], row([8, 4, 5], 11)], store) == 2
    for together in (rows, [*rows, row([11, 12, 13], 11)]):
        got = attend(together, store)
        torch.testing.assert_close(got, attend(together, store, "reference"))


def test_steps_are_written_to_their_columns() -> None:
    """Those that are not to be remembered to one that nobody reads."""
    rows = [
        Row([3, 1], [5, 6], [((4, 6),), ((4, 7),)], (4, 7)),
        Row([2, NO_PAGE], [0, None], [((0, 1),), ((0, 1),)], (0, 1)),
    ]
    new = torch.randn((2, 2, 2, HEADS, DIM), generator=torch.Generator().manual_seed(2))
    for reading in ("views", "reference"):
        store = make_store()
        before = store.kv.clone()
        if reading == "views":
            (layer,) = viewed_layers(rows, store)
        else:
            (layer,) = paged_layers(paged(rows, store), store, "reference")
        enter(layer, new)
        for column, written in ((5, new[0, 0]), (6, new[0, 1]), (8, new[1, 0])):
            assert torch.equal(store.kv[0, :, :, column], written)
        rest = [c for c in range(store.waste) if c not in (5, 6, 8)]
        assert torch.equal(store.kv[:, :, :, rest], before[:, :, :, rest])


def test_a_plan_takes_over_another_in_place() -> None:
    """So that a graph that was captured with the one does what the other says."""
    store = make_store()
    first, second = [row([1, 2, 3], 11)], [row([6, 5, 4], 9)]
    captured = paged(first, store)
    (layer,) = paged_layers(captured, store, "reference")
    assert isinstance(layer, PagedLayer)
    table = layer.table.data_ptr()
    expected = attend(second, store, "reference")
    captured.take(paged(second, store))
    q = torch.randn((1, 1, 2 * HEADS, DIM), generator=torch.Generator().manual_seed(1))
    assert torch.equal(layer.attend(q), expected)
    assert layer.table.data_ptr() == table
    new = torch.ones((1, 1, 2, HEADS, DIM))
    enter(layer, new)
    assert (store.kv[0, :, :, 4 * SIZE] == 1).all()
