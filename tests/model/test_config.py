"""The model configuration refuses what does not fit, by name."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from model.config import LMConfig
from model.errors import ConfigError


def test_round_trip() -> None:
    """JSON keeps every field."""
    config = LMConfig(dim=128, delays=(0, 2, 2, 2, 2, 2, 2, 2), rope_base=5e5)
    assert LMConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_frozen() -> None:
    """A configuration cannot change under a model."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        LMConfig().dim = 3  # type: ignore[misc]  # the point of the test


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dimm": 1}, "unknown keys in the model configuration: dimm"),
        ({"dim": "256"}, "dim: expected int, got '256'"),
        ({"dim": True}, "dim: expected int, got True"),
        ({"dim": 252, "num_heads": 5}, "dim: must be a multiple of twice num_heads"),
        ({"num_kv_heads": 3}, "num_heads: must be a multiple of num_kv_heads"),
        ({"audio_entry_layer": 6}, "audio_entry_layer: must be below 6"),
        ({"delays": [0, 1]}, "delays: expected 8 numbers"),
        ({"text_window": 0}, "text_window: expected a positive number"),
        ({"norm_eps": 0}, "rope_base and norm_eps: must be > 0"),
    ],
)
def test_refusals(values: dict[str, Any], message: str) -> None:
    """Each refusal names the field and what it got."""
    with pytest.raises(ConfigError, match=message):
        LMConfig.from_dict(values)
