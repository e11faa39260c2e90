"""The sizes of Mimi are read from what is published; what is another codec is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from model.codec.mimi import MimiConfig
from model.errors import ConfigError


def test_both_published_forms_say_the_same(golden: Path, golden_config: MimiConfig) -> None:
    """Of the same codec."""
    values = json.loads((golden / "hf_mimi.json").read_text())
    assert MimiConfig.from_transformers(values) == golden_config


def test_what_transformers_leaves_out_is_as_published() -> None:
    """An empty mapping is the published codec; newer files nest the base of the rotation."""
    assert MimiConfig.from_transformers({}) == MimiConfig()
    rope = {"rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"}}
    assert MimiConfig.from_transformers(rope).rope_base == 5000.0


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("seanet", "pad_mode", "reflect"),
        ("seanet", "n_residual_layers", 3),
        ("transformer", "gating", "silu"),
        ("transformer", "d_model", 48),
        ("quantizer", "input_dimension", 48),
    ],
)
def test_another_codec_is_refused(golden: Path, part: str, key: str, value: object) -> None:
    """By the key that makes it another."""
    values = json.loads((golden / "mimi.json").read_text())
    values[part][key] = value
    with pytest.raises(ConfigError, match=f"{part}: {key}: expected .* got"):
        MimiConfig.from_kyutai(values)


def test_a_missing_part_is_named(golden: Path) -> None:
    """Instead of being guessed."""
    values: dict[str, Any] = json.loads((golden / "mimi.json").read_text())
    del values["quantizer"]["bins"]
    with pytest.raises(ConfigError, match="quantizer: bins is missing"):
        MimiConfig.from_kyutai(values)
    with pytest.raises(ConfigError, match="seanet: expected a mapping, got int"):
        MimiConfig.from_kyutai({"seanet": 3})


@pytest.mark.parametrize(
    "values",
    [{"use_conv_shortcut": True}, {"num_key_value_heads": 2}, {"head_dim": 32}, {"norm_eps": 1e-6}],
    ids=lambda values: next(iter(values)),
)
def test_another_codec_of_transformers_is_refused(values: dict[str, Any]) -> None:
    """The same for the other form."""
    with pytest.raises(ConfigError, match=f"{next(iter(values))}: expected"):
        MimiConfig.from_transformers(values)


@pytest.mark.parametrize("values", [{"num_heads": 7}, {"window": 1}, {"num_codebooks": 1}], ids=str)
def test_sizes_that_do_not_fit(values: dict[str, int]) -> None:
    """Are refused before any weight is read."""
    with pytest.raises(ConfigError, match="Mimi: expected"):
        MimiConfig(**values)  # type: ignore[arg-type]
