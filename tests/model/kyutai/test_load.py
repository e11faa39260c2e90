"""Loading: the type asked for, and wrong files refused before anything is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kernels.int8 import Int8Linear
from model.errors import ConfigError, WeightsError
from model.kyutai.config import KyutaiConfig
from model.kyutai.load import load_lm
from model.transformer.linears import convert_to_int8
from tests.fakes.kyutai import random_moshi

NAME = "transformer.layers.0.norm1.alpha"


@pytest.fixture
def config(golden: Path) -> KyutaiConfig:
    """Return a small model's."""
    return KyutaiConfig.from_dict(json.loads((golden / "moshi.json").read_text()))


def test_weights_are_of_the_type_asked_for(golden: Path, config: KyutaiConfig) -> None:
    """And are nobody's views: a part does not keep the whole in memory."""
    lm = load_lm(golden / "moshi.weights.safetensors", config, torch.bfloat16)
    for parameter in lm.parameters():
        assert parameter.dtype == torch.bfloat16
        assert parameter.untyped_storage().nbytes() == 2 * parameter.numel()
    assert lm.rope_frequencies.dtype == torch.float32


@pytest.mark.parametrize(
    ("shape", "match"),
    [(None, "missing"), ((1, 1, 33), r"expected \[1, 1, 32\].*got \[1, 1, 33\]")],
)
def test_wrong_files_are_refused(
    golden: Path, config: KyutaiConfig, tmp_path: Path, shape: tuple[int, ...] | None, match: str
) -> None:
    """By the name of the tensor."""
    tensors = load_file(golden / "moshi.weights.safetensors")
    del tensors[NAME]
    if shape:
        tensors[NAME] = torch.ones(shape)
    save_file(tensors, tmp_path / "lm.safetensors")
    with pytest.raises(WeightsError, match=f"{NAME}: {match}"):
        load_lm(tmp_path / "lm.safetensors", config)


def test_int8_is_that_of_the_dense_model(golden: Path, tmp_path: Path) -> None:
    """Row by row; what is no hot linear stays as it is."""
    config, path = random_moshi(golden, tmp_path)
    lm, expected = load_lm(path, config, linears="int8"), load_lm(path, config)
    convert_to_int8(expected)
    theirs = expected.state_dict()
    assert lm.state_dict().keys() == theirs.keys()
    assert any(name.endswith("levels") for name in theirs)
    for name, tensor in lm.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name


def test_widths_that_int8_cannot_do(golden: Path, config: KyutaiConfig) -> None:
    """Are refused by the name of the linear."""
    with pytest.raises(ConfigError, match=r"layers.0.mlp.down.weight: cannot be int8 .*got 88"):
        load_lm(golden / "moshi.weights.safetensors", config, linears="int8")


def test_int8_takes_any_width_elsewhere(golden: Path, config: KyutaiConfig) -> None:
    """Only the CPU's kernel reads 16 inputs at a time."""
    lm = load_lm(golden / "moshi.weights.safetensors", config, linears="int8", device="meta")
    linears = [each for each in lm.modules() if isinstance(each, Int8Linear)]
    assert any(each.in_features % 16 for each in linears)
    assert {each.backend for each in linears} == {"reference"}
    assert {each.levels.device.type for each in linears} == {"meta"}


def test_conditions_stay_exact(golden: Path) -> None:
    """They are worked out once a session, in float32, whatever the model is in."""
    config = KyutaiConfig.from_dict(json.loads((golden / "hibiki.json").read_text()))
    lm = load_lm(golden / "hibiki.weights.safetensors", config, torch.bfloat16)
    types = {name.split(".")[0]: p.dtype for name, p in lm.named_parameters()}
    assert types["conditioners"] == torch.float32
    assert types["layers"] == torch.bfloat16
    added = lm.conditioners({"description": "very_good"}).added
    assert added is not None
    assert added.dtype == torch.float32
