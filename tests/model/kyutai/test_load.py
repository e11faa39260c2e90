"""Loading: the type asked for, and wrong files refused before anything is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.errors import WeightsError
from model.kyutai.config import KyutaiConfig
from model.kyutai.load import load_lm

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
