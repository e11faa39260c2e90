"""Laying a weight out anew changes where it lies, and nothing else."""

from __future__ import annotations

import pytest
import torch

from model.transformer.layout import for_few_rows


@pytest.mark.parametrize(
    ("shape", "stride"), [((5, 3), (1, 5)), ((4, 4), (4, 1)), ((2, 5), (5, 1))]
)
def test_only_what_widens_lies_input_by_input(
    shape: tuple[int, int], stride: tuple[int, int]
) -> None:
    """Shape and values stay, and the copy keeps nothing else in memory."""
    whole = torch.randn(3, *shape)
    weight = for_few_rows(whole[1])
    assert torch.equal(weight, whole[1])
    assert weight.stride() == stride
    assert weight.untyped_storage().nbytes() == weight.nbytes
