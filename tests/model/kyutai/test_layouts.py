"""Kyutai's int8 files, attention split by weight set, PersonaPlex with Moshi's depth weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.errors import WeightsError
from model.files.published import TensorFile
from model.kyutai.config import KyutaiConfig
from model.kyutai.layouts import PublishedWeights
from model.kyutai.load import load_lm
from model.transformer.lm import LM

Tensors = dict[str, Tensor]

QKV = "transformer.layers.0.self_attn.in_proj_weight"
DEPTH_QKV = "depformer.layers.1.self_attn.in_proj_weight"
# What is looked up by row stays as it is where linears are quantised.
TABLES = ("emb.", "text_emb.", "depformer_emb.", "depformer_text_emb.")


def config_of(golden: Path, case: str) -> KyutaiConfig:
    """Read a golden case's configuration."""
    return KyutaiConfig.from_dict(json.loads((golden / f"{case}.json").read_text()))


def tensors_of(golden: Path, case: str) -> Tensors:
    """Read a golden case's weights."""
    return load_file(golden / f"{case}.weights.safetensors")


def load(path: Path, tensors: Tensors, config: KyutaiConfig) -> LM:
    """Write a file and load it."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return load_lm(path, config)


def equal(one: LM, other: LM) -> bool:
    """Compare all weights."""
    theirs = other.state_dict()
    return all(torch.equal(t, theirs[name]) for name, t in one.state_dict().items())


def split_attention(tensors: Tensors, depth_sets: int) -> Tensors:
    """Name attention as today's package has it in memory, one tensor a weight set."""
    found: dict[str, Any] = {}
    for name, tensor in tensors.items():
        sets = depth_sets if name.startswith("depformer.") else 1
        for fused, split in (("in_proj_weight", "in_projs"), ("out_proj.weight", "out_projs")):
            if name.endswith(f"self_attn.{fused}"):
                stem = name.removesuffix(fused)
                found |= {f"{stem}{split}.{i}.weight": p for i, p in enumerate(tensor.chunk(sets))}
                break
        else:
            found[name] = tensor
    return found


def to_int8(tensors: Tensors) -> tuple[Tensors, Tensors]:
    """Return linears in int8 with the largest magnitude of each row, and what they stand for."""
    stored, meant = {}, {}
    for name, tensor in tensors.items():
        if tensor.dim() != 2 or name.startswith(TABLES) or "embed" in name:
            stored[name] = meant[name] = tensor
            continue
        most = tensor.abs().amax(1)
        levels = (tensor / most[:, None] * 127).round()
        stored |= {name: levels.to(torch.int8), f"{name}_scb": most}
        meant[name] = levels * (most / 127)[:, None]
    return stored, meant


@pytest.mark.parametrize("is_split", [False, True])
@pytest.mark.parametrize("case", ["moshi", "hibiki", "tts"])
def test_int8_stands_for_what_it_says(
    golden: Path, tmp_path: Path, case: str, *, is_split: bool
) -> None:
    """A level of 127 is the largest magnitude of its row, in either spelling of attention."""
    config, tensors = config_of(golden, case), tensors_of(golden, case)
    if is_split:
        tensors = split_attention(tensors, config.num_depth_sets)
    stored, meant = to_int8(tensors)
    one = load(tmp_path / "int8.safetensors", stored, config)
    other = load(tmp_path / "meant.safetensors", meant, config)
    assert equal(one, other)
    assert PublishedWeights(TensorFile(tmp_path / "int8.safetensors"), config).layout == "int8"
    assert PublishedWeights(TensorFile(tmp_path / "meant.safetensors"), config).layout == "kyutai"


def test_split_attention_is_the_same(golden: Path, tmp_path: Path) -> None:
    """Also where there is one tensor under the name of a module."""
    config, tensors = config_of(golden, "moshi"), tensors_of(golden, "moshi")
    expected = load(tmp_path / "fused.safetensors", tensors, config)
    split = split_attention(tensors, config.num_depth_sets)
    assert equal(load(tmp_path / "split.safetensors", split, config), expected)
    tensors[QKV.replace("in_proj_", "in_proj.")] = tensors.pop(QKV)
    assert equal(load(tmp_path / "module.safetensors", tensors, config), expected)


def test_personaplex_with_the_depth_weights_of_moshi(golden: Path, tmp_path: Path) -> None:
    """Those of the user's codebooks would be copies, and nothing comes of them."""
    config, tensors = config_of(golden, "personaplex"), tensors_of(golden, "personaplex")
    half = {}
    for name, tensor in tensors.items():
        if name.startswith("depformer.") and "self_attn" in name:
            half[name] = tensor.chunk(2)[0]
        else:
            number = [int(part) for part in name.split(".") if part.isdigit()][-1:]
            first = 7 if name.startswith("depformer_emb.") else 8
            is_depth = name.startswith(("depformer_emb.", "depformer_in.", "linears.")) or (
                "depformer" in name and "gating" in name
            )
            if not (is_depth and number[0] >= first):
                half[name] = tensor
    assert len(half) < len(tensors)
    whole = load(tmp_path / "16.safetensors", tensors, config)
    assert equal(load(tmp_path / "8.safetensors", half, config), whole)
    half["linears.12.weight"] = tensors["linears.12.weight"]
    with pytest.raises(WeightsError, match=r"linears.12.weight: not part of this model"):
        load(tmp_path / "9.safetensors", half, config)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.pop(f"{QKV}_scb"), rf"{QKV}_scb: missing, expected \[96\]"),
        (lambda t: t.update({f"{QKV}_scb": torch.ones(95)}), r"expected \[96\] in F32, got \[95\]"),
        (lambda t: t.update({f"{QKV}_scb": torch.ones(96).half()}), "expected .* in F32, .* F16"),
        (
            lambda t: t.update({QKV: t[QKV][:5]}),
            rf"{QKV}: expected \[96, 32\] in I8, got \[5, 32\]",
        ),
        (lambda t: t.update({QKV: t[QKV].float()}), f"{QKV}_scb: not part of this model"),
        (
            lambda t: t.update({"out_norm.alpha": torch.ones(1, 1, 32, dtype=torch.int8)}),
            "out_norm.alpha_scb: missing",
        ),
    ],
    ids=["no scale", "scale shape", "scale type", "shape", "scale left over", "norm"],
)
def test_wrong_int8_files_are_refused(
    golden: Path, tmp_path: Path, change: Callable[[Tensors], object], match: str
) -> None:
    """By the name of the tensor, with what was got and expected."""
    tensors, _ = to_int8(tensors_of(golden, "moshi"))
    change(tensors)
    with pytest.raises(WeightsError, match=match):
        load(tmp_path / "wrong.safetensors", tensors, config_of(golden, "moshi"))


def test_a_weight_set_that_is_missing_is_named(golden: Path, tmp_path: Path) -> None:
    """As it would be called in the file at hand."""
    config = config_of(golden, "moshi")
    tensors = split_attention(tensors_of(golden, "moshi"), config.num_depth_sets)
    name = DEPTH_QKV.replace("in_proj_weight", "in_projs.2.weight")
    del tensors[name]
    with pytest.raises(WeightsError, match=rf"{name}: missing, expected \[48, 16\]"):
        load(tmp_path / "wrong.safetensors", tensors, config)


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("depformer.slices.0.emb.weight", "MLX"),
        ("depformer.0.linear_in.weight", "candle"),
        ("transformer.layers.0.gating.linear_in.lora_A.weight", "LoRA"),
        ("something.else", "text_emb.weight: missing"),
    ],
)
def test_files_for_other_programs(golden: Path, tmp_path: Path, name: str, program: str) -> None:
    """Say which program they are for, where it is known."""
    with pytest.raises(WeightsError, match=program):
        load(tmp_path / "other.safetensors", {name: torch.ones(1)}, config_of(golden, "moshi"))
