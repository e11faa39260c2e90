"""A model whose NF4 linears are repacked computes what it did before."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kernels.nf4 import NF4Linear, PlanarNF4Gated
from model.errors import ConfigError
from model.transformer.attention import GatedMLP
from model.transformer.planar import use_planar_linears


def packed_mlp(dim: int, ff_dim: int) -> nn.Sequential:
    """Return a gated MLP in NF4, within something else."""
    mlp = GatedMLP(dim, ff_dim)
    for name in ("gate_up", "down"):
        dense = mlp.get_submodule(name)
        assert isinstance(dense, nn.Linear)
        linear = NF4Linear.from_linear(dense, backend="reference")
        mlp.set_submodule(name, linear)
    return nn.Sequential(mlp)


@pytest.mark.parametrize("is_whole", [False, True])
def test_a_gated_mlp_gates_in_one_call(is_whole: bool) -> None:
    """The output is the same to the bit, whether the MLP is part of a model or all of it."""
    model = packed_mlp(64, 128)
    part = model if is_whole else model[0]
    x = torch.randn(2, 3, 64)
    before = model(x)
    assert use_planar_linears(part, "reference") == 2
    assert isinstance(model[0].gate_up, PlanarNF4Gated)
    assert torch.equal(model(x), before)


def test_a_width_that_cannot_be_is_a_matter_of_configuration() -> None:
    """The linear is named, and nothing is changed."""
    model = packed_mlp(64, 72)
    with pytest.raises(ConfigError, match=r"repacked: 0\.down: .* got 72"):
        use_planar_linears(model, "reference")
    assert isinstance(model[0].gate_up, NF4Linear)
