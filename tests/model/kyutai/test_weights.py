"""Quantised files are read as strictly as published ones, and weights quantised part by part."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from kernels.nf4 import quantize_nf4
from model.errors import WeightsError
from model.kyutai.check import QUANTISED_FILE, check_directory
from model.kyutai.config import KyutaiConfig
from model.kyutai.load import load_lm
from model.kyutai.quantize import quantize_checkpoint
from model.kyutai.weights import levels, quantize, skeleton
from model.transformer.lm import LM

MakeDirectory = Callable[..., Path]

QKV = "layers.0.attention.qkv.weight"


@pytest.mark.parametrize("case", ["moshi", "hibiki_zero", "tts"])
def test_a_skeleton_is_the_model_without_memory(golden: Path, case: str) -> None:
    """Same tensors, same shapes, nothing in them; the rotary frequencies are no weights."""
    config = KyutaiConfig.from_dict(json.loads((golden / f"{case}.json").read_text()))
    bare, full = skeleton(config), LM(config.lm())
    shapes = {name: tensor.shape for name, tensor in full.state_dict().items()}
    assert {name: tensor.shape for name, tensor in bare.state_dict().items()} == shapes
    assert all(tensor.is_meta for tensor in bare.state_dict().values())
    assert torch.equal(bare.rope_frequencies, full.rope_frequencies)


def test_levels() -> None:
    """There are 16, from -1 to 1, and zero is one of them."""
    found = levels().tolist()
    assert found == sorted(found)
    assert (found[0], found[7], found[15]) == (-1.0, 0.0, 1.0)


def test_parts_are_quantised_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the size of a part, as long as it is whole blocks."""
    weight = torch.randn(37, 100)
    whole = quantize_nf4(weight)
    monkeypatch.setattr("model.kyutai.weights._PART", 128)
    for one, other in zip(quantize(weight), whole, strict=True):
        assert torch.equal(one, other)


STATE = f"{QKV}.quant_state.bitsandbytes__nf4"


def _state(**values: object) -> Tensor:
    made = {"quant_type": "nf4", "blocksize": 64, "shape": [96, 32]} | values
    return torch.tensor(list(json.dumps(made).encode()), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({f"{QKV}.absmax": None}, rf"{QKV}.absmax: missing, expected \[48\]"),
        ({f"{QKV}.absmax": torch.ones(47)}, r"absmax: expected \[48\] in F32, got \[47\]"),
        ({QKV: torch.ones(1536, 1)}, rf"{QKV}: expected \[1536, 1\] in U8, got .* F32"),
        ({STATE: _state(blocksize=128)}, "expected .'nf4', 64, .*, got .'nf4', 128"),
        ({STATE: _state(shape=[32, 96])}, r"got \['nf4', 64, \[32, 96\]\]"),
        ({STATE: torch.ones(3, dtype=torch.uint8)}, "not what bitsandbytes writes"),
        ({f"{QKV}.quant_map": torch.zeros(16)}, "expected the levels of NF4"),
        ({"norm.weight": torch.ones(31)}, r"norm.weight: expected \[32\]"),
        ({"extra": torch.ones(1)}, "extra: not part of this model"),
    ],
)
def test_wrong_quantised_files_are_refused(
    make_directory: MakeDirectory, tmp_path: Path, changes: dict[str, Tensor | None], match: str
) -> None:
    """By the name of the tensor."""
    quantize_checkpoint(make_directory(), tmp_path / "nf4")
    path = tmp_path / "nf4" / QUANTISED_FILE
    tensors = load_file(path) | changes
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, path, {"parley": "1"})
    config = check_directory(tmp_path / "nf4").config
    assert config is not None
    with pytest.raises(WeightsError, match=match):
        load_lm(path, config, linears="nf4")
    save_file(kept, path, {"parley": "2"})
    with pytest.raises(WeightsError, match="expected format 1, got '2'"):
        load_lm(path, config)


def test_weights_that_no_scale_can_carry(golden: Path, tmp_path: Path) -> None:
    """Are refused by our name of the tensor and that of the file."""
    config = KyutaiConfig.from_dict(json.loads((golden / "moshi.json").read_text()))
    tensors = load_file(golden / "moshi.weights.safetensors")
    tensors["transformer.layers.0.self_attn.in_proj_weight"][3, 4] = torch.inf
    save_file(tensors, tmp_path / "inf.safetensors")
    with pytest.raises(WeightsError, match=rf"inf.safetensors: {QKV}: cannot be in NF4 .*inf"):
        load_lm(tmp_path / "inf.safetensors", config, linears="nf4")
