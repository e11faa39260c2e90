"""Laying weights out anew changes where they lie, and nothing else."""

from __future__ import annotations

import torch
from torch import nn

from model.layout import lay_out_for_few_rows


def test_only_wide_linears_are_laid_out_anew() -> None:
    """Input by input where there are more outputs; names, shapes and values stay."""
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 5), nn.Linear(5, 2, bias=False))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x = torch.randn(4, 3)
    expected = model(x)
    lay_out_for_few_rows(model)
    assert [p.stride() for n, p in model.named_parameters() if n.endswith("weight")] == [
        (1, 5), (5, 1), (5, 1),
    ]  # fmt: skip
    assert {n: t.tolist() for n, t in model.state_dict().items()} == {
        n: t.tolist() for n, t in before.items()
    }
    torch.testing.assert_close(model(x), expected)
