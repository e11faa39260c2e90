"""Conditions: what can be said and what not."""

from __future__ import annotations

import pytest
import torch

from model.errors import ConfigError
from model.family import Conditioner, Family
from model.transformer.condition import Conditioners, Vectors

FAMILY = Family(
    num_user_codebooks=1,
    text_out=5,
    conditioners={
        "mood": Conditioner(dim=3, values=("sad", "glad"), num_rows=3),
        "voice": Conditioner(dim=2, how="cross"),
    },
)


def make() -> Conditioners:
    """Return random ones."""
    conditioners = Conditioners(FAMILY, 4)
    for parameter in conditioners.parameters():
        parameter.data.normal_()
    return conditioners


def test_what_is_absent_is_padding() -> None:
    """Of a voice as well: its padding is attended to."""
    conditioners = make()
    voice = Vectors(torch.randn(3, 2), torch.tensor([True, False, True]))
    said, nothing = conditioners({"voice": voice}), conditioners({})
    assert said.attended is not None
    assert nothing.attended is not None
    assert nothing.attended.shape == (1, 4)
    assert torch.equal(said.attended[1], nothing.attended[0])
    assert not torch.equal(said.attended[0], nothing.attended[0])
    assert said.added is not None
    assert nothing.added is not None
    assert torch.equal(said.added, nothing.added)


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"mood": "angry"}, "sad, glad, got 'angry'"),
        ({"tone": "sad"}, "no condition tone: there is mood, voice"),
        ({"voice": "sad"}, "expected one of vectors"),
        ({"voice": Vectors(torch.zeros(1, 3), torch.ones(1, dtype=torch.bool))}, "width 2, got 3"),
    ],
)
def test_what_cannot_be_said(said: dict[str, str | Vectors], match: str) -> None:
    """It is refused by name."""
    with pytest.raises(ConfigError, match=match):
        make()(said)
