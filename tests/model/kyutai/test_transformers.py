"""Moshi as `transformers` publishes it is the same Moshi: what it computes, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.cache.state import Kind, Steps
from model.codec.mimi import load_mimi
from model.errors import ConfigError, WeightsError
from model.kyutai.load import load_lm
from model.kyutai.transformers import MIMI_PREFIX, is_transformers, read_config

transformers = pytest.importorskip("transformers", reason="needs transformers")

SIZES: dict[str, Any] = json.loads((Path(__file__).parent / "transformers.json").read_text())
Q = "decoder.model.layers.0.self_attn.q_proj.linear.weight"
FC1 = "depth_decoder.layers.1.mlp.fc1.weight"


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A small model of theirs, and where it was saved: in one file, and in several."""
    torch.manual_seed(0)
    model = transformers.MoshiForConditionalGeneration(transformers.MoshiConfig(**SIZES)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    directory = tmp_path_factory.mktemp("transformers")
    model.save_pretrained(directory / "whole")
    model.save_pretrained(directory / "split", max_shard_size="20KB")
    return model, directory


def values_of(theirs: tuple[Any, Path]) -> dict[str, Any]:
    """Return what their `config.json` says."""
    values: dict[str, Any] = json.loads((theirs[1] / "whole/config.json").read_text())
    return values


def steps(text: Tensor, made: Tensor, user: Tensor) -> Steps:
    """Return frames of a conversation, codes [B, K, T]."""
    kind = torch.full(text.shape, int(Kind.DUPLEX))
    position = torch.arange(text.shape[1]).expand(text.shape)
    return Steps(text, user.transpose(1, 2), made.transpose(1, 2), kind, position)


@pytest.mark.parametrize("name", ["whole/model.safetensors", "split/model.safetensors.index.json"])
@torch.no_grad()
def test_it_computes_what_theirs_computes(theirs: tuple[Any, Path], name: str) -> None:
    """Text logits of every step, and those of every codebook."""
    model, directory = theirs
    config, _ = read_config(values_of(theirs))
    lm = load_lm(directory / name, config)
    batch, length = 2, 9
    text = torch.randint(41, (batch, length))
    made, user = (torch.randint(33, (batch, 3, length)) for _ in range(2))
    expected = model(input_ids=text, moshi_audio_codes=made, user_audio_codes=user)
    hidden = lm(steps(text, made, user))
    torch.testing.assert_close(lm.text_logits(hidden), expected.logits, atol=1e-5, rtol=1e-5)
    piece, codes = torch.randint(40, (batch,)), torch.randint(32, (batch, 3))
    depth = model.depth_decoder(
        input_ids=torch.cat([piece[:, None], codes[:, :-1]], dim=1),
        last_hidden_state=expected.last_hidden_state[:, -1:],
    )
    logits = lm.depth(hidden[:, -1], piece, codes)
    torch.testing.assert_close(logits, depth.logits, atol=1e-5, rtol=1e-5)


def test_its_codec_is_in_the_same_file(theirs: tuple[Any, Path]) -> None:
    """Under a prefix, with sizes of its own."""
    model, directory = theirs
    _, config = read_config(values_of(theirs))
    mimi = load_mimi(directory / "whole/model.safetensors", config, prefix=MIMI_PREFIX)
    weight = model.audio_encoder.encoder_transformer.layers[0].mlp.fc1.weight
    assert torch.equal(mimi.state_dict()["encoder.transformer.layers.0.up.weight"], weight)


def test_an_empty_configuration_is_the_published_one() -> None:
    """What a file leaves out is Moshi 7B."""
    config, mimi = read_config({"hidden_size": 4096})
    assert is_transformers({"hidden_size": 4096})
    assert not is_transformers({"model_type": "moshi", "dim": 4096})
    from model.kyutai.config import KyutaiConfig  # noqa: PLC0415

    assert config == KyutaiConfig.from_dict({})
    assert mimi.num_codebooks == 32


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"hidden_act": "gelu"}, 'hidden_act: expected "silu", got "gelu"'),
        ({"rms_norm_eps": 1e-5}, "rms_norm_eps: expected 1e-08, got 1e-05"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings: expected false"),
        ({"head_dim": 7}, "head_dim: expected 8, got 7"),
        ({"ffn_dim": 7}, "ffn_dim: expected 6, got 7"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1}}, "rope_type: expected"),
        ({"depth_decoder_config": {"num_codebooks": 4}}, "num_codebooks: expected 3, got 4"),
        ({"depth_decoder_config": {"num_key_value_heads": 1}}, "num_key_value_heads: expected 16"),
        ({"num_attention_heads": None}, "not a configuration"),
        ({"depth_decoder_config": 3}, "not a configuration"),
    ],
)
def test_values_that_nothing_computes(
    theirs: tuple[Any, Path], changes: dict[str, Any], match: str
) -> None:
    """Are refused by their keys."""
    with pytest.raises(ConfigError, match=match):
        read_config(values_of(theirs) | changes)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.pop(Q), rf"{Q}: missing, expected \[32, 32\]"),
        (lambda t: t.update({FC1: torch.zeros(3, 24, 15)}), rf"{FC1}: expected \[3, 24, 16\]"),
        (lambda t: t.update({Q: t[Q].to(torch.int8)}), rf"{Q}: expected .*got \[32, 32\] in I8"),
        (lambda t: t.update({"decoder.bias": torch.zeros(1)}), "decoder.bias: not part of this"),
    ],
    ids=["missing", "shape", "type", "left over"],
)
def test_a_wrong_file_is_refused(
    theirs: tuple[Any, Path],
    tmp_path: Path,
    change: Callable[[dict[str, Tensor]], object],
    match: str,
) -> None:
    """By the name that the tensor has in it, before anything is read."""
    config, _ = read_config(values_of(theirs))
    tensors = load_file(theirs[1] / "whole/model.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "wrong.safetensors")
    with pytest.raises(WeightsError, match=match):
        load_lm(tmp_path / "wrong.safetensors", config)
