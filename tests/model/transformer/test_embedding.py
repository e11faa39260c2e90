"""Tables of codes and pieces: what is absent is exactly zero, two pieces in one are both heard."""

from __future__ import annotations

import torch

from model.transformer.embedding import SummedTables, TextTable, TwoTextTable


def test_codes_are_summed_and_absent_ones_are_nothing() -> None:
    """On top of what there is."""
    tables = SummedTables(3, 5, 4)
    codes = torch.tensor([[[1, -1, 4]]])
    expected = tables.table[0, 1] + tables.table[2, 4]
    assert torch.equal(tables(codes, None)[0, 0], expected)
    assert torch.equal(tables(codes, torch.ones(1, 1, 4))[0, 0], 1 + tables.table[0, 1] + 0
                       + tables.table[2, 4])  # fmt: skip
    assert not tables(torch.full((1, 1, 3), -1), None).any()


def test_no_codebooks_add_nothing() -> None:
    """A model that only speaks hears nobody."""
    tables = SummedTables(0, 5, 4)
    assert tables(torch.empty((1, 1, 0), dtype=torch.int64), None) is None


def test_narrow_tables_are_projected() -> None:
    """No piece is zero whatever the projection."""
    table = TextTable(7, 4, rank=2)
    text = torch.tensor([6, -1])
    assert torch.equal(table(text)[0], table.out(table.weight[6]))
    assert not table(text)[1].any()


def test_two_pieces_in_one_token() -> None:
    """The second counts whole tables, from one on; without it only the first is heard."""
    table = TwoTextTable(7, 4)
    first, second = table.first_out(table.weight[3]), table.second_out(table.weight[5])
    x = table(torch.tensor([3, (5 + 1) * 7 + 3, -1]))
    torch.testing.assert_close(x, torch.stack([first, first + second, torch.zeros(4)]))
