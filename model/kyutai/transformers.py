"""Moshi as Hugging Face's `transformers` publishes it: its `config.json`, and its tensors.

The model is Kyutai's. What differs: queries, keys and values are apart; the channels that rotate
against each other are the halves of a head, so rows of queries and keys are in another order; and
the depth transformer's sets of weights are stacked along a first axis. Mimi is in the same file,
its names under `MIMI_PREFIX`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from model.codec.mimi import MimiConfig
from model.errors import ConfigError
from model.files.published import Source
from model.kyutai.config import MOSHI_7B, KyutaiConfig, Stack
from model.kyutai.tensors import expected_tensors

MIMI_PREFIX = "audio_encoder."
MARK = "decoder.model.embed_tokens.weight"  # a name by which the layout is known

# A published name without its layer, ours of the same place, for one layer.
_NORMS = {"norm1.alpha": "input_layernorm.weight", "norm2.alpha": "post_attention_layernorm.weight"}

# What `transformers.MoshiConfig` assumes for a key that a file does not give.
_DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "audio_vocab_size": 2048,
    "hidden_act": "silu",
    "head_dim": None,
    "sliding_window": 3000,
    "ffn_dim": 22_528,
    "rms_norm_eps": 1e-8,
    "num_codebooks": 8,
    "tie_word_embeddings": False,
}
_DEPTH_DEFAULTS: Mapping[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 16,
    "num_key_value_heads": None,
    "hidden_act": "silu",
    "head_dim": None,
    "ffn_dim": 5632,
    "rms_norm_eps": 1e-8,
    "tie_word_embeddings": False,
}


def is_transformers(values: Mapping[str, Any]) -> bool:
    """Say whether a parsed `config.json` is of this form; both call themselves "moshi"."""
    return "hidden_size" in values or "depth_decoder_config" in values


def read_config(values: Mapping[str, Any]) -> tuple[KyutaiConfig, MimiConfig]:
    """Read a parsed `config.json` of this form; what it leaves out is as published.

    Returns:
        The language model's sizes and the codec's.

    Raises:
        ConfigError: naming a value that nothing here computes.
    """
    try:
        return _read(values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"not a configuration of transformers' Moshi ({error!r})") from error


def _read(values: Mapping[str, Any]) -> tuple[KyutaiConfig, MimiConfig]:
    mimi = MimiConfig.from_transformers(values.get("audio_encoder_config") or {})
    given = {**_DEFAULTS, **values}
    if given["audio_vocab_size"] is None:
        given["audio_vocab_size"] = mimi.codebook_size
    depth = {**_DEPTH_DEFAULTS, **(values.get("depth_decoder_config") or {})}
    num_codebooks = given["num_codebooks"]
    # The main model's values hold for its depth decoder, whatever its own section says.
    for key, expected in (
        ("vocab_size", given["vocab_size"]),
        ("input_size", given["hidden_size"]),
        ("audio_vocab_size", given["audio_vocab_size"]),
        ("num_codebooks", num_codebooks),
    ):
        _require(depth.get(key, expected), expected, f"depth_decoder_config: {key}")
    rope = values.get("rope_parameters") or {"rope_theta": values.get("rope_theta", 10_000.0)}
    _require(rope.get("rope_type", "default"), "default", "rope_parameters: rope_type")
    backbone = _stack(given, "", given["sliding_window"], float(rope["rope_theta"]))
    # Other numbers of codebooks than Moshi's occur in tests. Their delays follow its pattern.
    if (made := 2 * num_codebooks) != MOSHI_7B["n_q"]:
        delays: tuple[int, ...] = (0, *((0, *[1] * (num_codebooks - 1)) * 2))
    else:
        delays = tuple(MOSHI_7B["delays"])
    config = KyutaiConfig(
        kind="moshi",
        backbone=backbone,
        depth=_stack(depth, "depth_decoder_config: ", num_codebooks, None),
        depth_sets=tuple(range(num_codebooks)),
        depth_rank=None,
        has_depth_norms=False,
        text_card=given["vocab_size"],
        text_card_out=given["vocab_size"],
        card=given["audio_vocab_size"],
        num_codebooks=made,
        num_generated=num_codebooks,
        delays=delays,
        has_two_texts=False,
        conditioners={},
        cross_position_scale=None,
        num_extra_heads=0,
    )
    return config, mimi


def _stack(values: Mapping[str, Any], where: str, context: int, rope_base: float | None) -> Stack:
    dim, heads = values["hidden_size"], values["num_attention_heads"]
    for key, expected in (
        ("hidden_act", "silu"),
        ("rms_norm_eps", 1e-8),
        ("tie_word_embeddings", False),
        ("head_dim", values["head_dim"] and dim // heads),
        ("ffn_dim", values["ffn_dim"] // 2 * 2),
    ):
        _require(values[key], expected, where + key)
    kv_heads = values["num_key_value_heads"] or heads
    if rope_base is None:
        _require(kv_heads, heads, f"{where}num_key_value_heads")
    return Stack(
        dim=dim,
        num_layers=values["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=kv_heads,
        # `ffn_dim` counts gate and up together, as their linear has it.
        ff_dim=values["ffn_dim"] // 2,
        context=context,
        rope_base=rope_base or 10_000.0,
        rope=None if rope_base is None else "neighbours",
    )


def _require(got: object, expected: object, key: str) -> None:
    if got != expected:
        raise ConfigError(f"{key}: expected {json.dumps(expected)}, got {json.dumps(got)}")


def sources(config: KyutaiConfig) -> dict[str, Source]:
    """Return for every tensor of Kyutai's layout the tensors of this layout that it is made of.

    Their channels rotate by halves here: `config` must say "neighbours", as `read_config` does,
    and the order of the rows is undone.
    """
    shapes = expected_tensors(config)
    found = dict(_sources(config, shapes))
    assert found.keys() == shapes.keys(), found.keys() ^ shapes.keys()
    return found


def _sources(
    config: KyutaiConfig, shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[str, Source]]:
    for name, theirs in _same(config):
        shape = shapes[name]
        # A norm's scale has two axes more where Kyutai publishes it.
        flat = shape[-1:] if len(shape) == 3 else shape
        yield name, Source({theirs: flat}, _viewed(shape))
    stack, depth = config.backbone, config.depth
    assert depth is not None
    kv_dim = stack.num_kv_heads * stack.head_dim
    for i in range(stack.num_layers):
        attention = f"decoder.model.layers.{i}.self_attn"
        rows = {"q": stack.dim, "k": kv_dim, "v": kv_dim}
        parts = {f"{attention}.{n}_proj.linear.weight": (rows[n], stack.dim) for n in "qkv"}
        name = f"transformer.layers.{i}.self_attn.in_proj_weight"
        yield name, Source(parts, _qkv(stack))
    yield from _depth_sources(config, depth)


def _same(config: KyutaiConfig) -> Iterator[tuple[str, str]]:
    """Go through the tensors that only have other names: Kyutai's, theirs."""
    for i in range(config.num_codebooks):
        yield f"emb.{i}.weight", f"embed_tokens.{i}.weight"
    yield "text_emb.weight", MARK
    yield "text_linear.weight", "decoder.lm_head.weight"
    yield "out_norm.alpha", "decoder.model.norm.weight"
    for i in range(config.backbone.num_layers):
        kyutai, theirs = f"transformer.layers.{i}", f"decoder.model.layers.{i}"
        yield f"{kyutai}.self_attn.out_proj.weight", f"{theirs}.self_attn.o_proj.linear.weight"
        yield f"{kyutai}.gating.linear_in.weight", f"{theirs}.mlp.fc1.weight"
        yield f"{kyutai}.gating.linear_out.weight", f"{theirs}.mlp.fc2.weight"
        for norm, their_norm in _NORMS.items():
            yield f"{kyutai}.{norm}", f"{theirs}.{their_norm}"
    yield "depformer_text_emb.weight", "depth_decoder.text_embed_tokens.weight"
    for k in range(config.num_generated - 1):
        yield f"depformer_emb.{k}.weight", f"depth_decoder.embed_tokens.{k}.weight"
    for i in range(config.depth.num_layers if config.depth else 0):
        for norm, their_norm in _NORMS.items():
            yield f"depformer.layers.{i}.{norm}", f"depth_decoder.layers.{i}.{their_norm}"


def _depth_sources(config: KyutaiConfig, depth: Stack) -> Iterator[tuple[str, Source]]:
    sets, dim = config.num_depth_sets, depth.dim
    # Here all sets of a weight are one tensor with a first axis. `_set` takes one of them out; the
    # tensor itself is read once, since the last few that were read are kept.
    projections = {"depth_decoder.input_projections.weight": (sets, dim, config.backbone.dim)}
    heads = {"depth_decoder.lm_heads.weight": (sets, config.card, dim)}
    for w in range(sets):
        yield f"depformer_in.{w}.weight", Source(projections, _set(w))
        yield f"linears.{w}.weight", Source(heads, _set(w))
    for i in range(depth.num_layers):
        kyutai, theirs = f"depformer.layers.{i}", f"depth_decoder.layers.{i}"
        attention = f"{theirs}.self_attn"
        # Nothing rotates here: the order of the rows of queries and keys is the same in both.
        qkv = {f"{attention}.{n}_proj.linear.weight": (sets, dim, dim) for n in "qkv"}
        out = {f"{attention}.o_proj.linear.weight": (sets, dim, dim)}
        yield f"{kyutai}.self_attn.in_proj_weight", Source(qkv, _sets_in_turn)
        yield f"{kyutai}.self_attn.out_proj.weight", Source(out, _sets_in_turn)
        up = {f"{theirs}.mlp.fc1.weight": (sets, 2 * depth.ff_dim, dim)}
        down = {f"{theirs}.mlp.fc2.weight": (sets, dim, depth.ff_dim)}
        for w in range(sets):
            yield f"{kyutai}.gating.{w}.linear_in.weight", Source(up, _set(w))
            yield f"{kyutai}.gating.{w}.linear_out.weight", Source(down, _set(w))


def _viewed(shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor.view(shape)


def _set(w: int) -> Callable[[Tensor], Tensor]:
    return lambda stacked: stacked[w]


def _sets_in_turn(*stacked: Tensor) -> Tensor:
    """``[W, D, D]`` of q, k, v to ``[W * 3 * D, D]``: all of the first set, then of the second."""
    # With two sets: [q0 k0 v0 q1 k1 v1]. Joined along the rows of each set, then set after set.
    return torch.cat(stacked, dim=1).flatten(0, 1)


def _qkv(stack: Stack) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return what joins queries, keys and values whose channels rotate by halves."""

    def convert(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        qk = torch.cat([q, k])
        # As in `model.kyutai.names._neighbours`: each head's first half of channels and its second
        # are interleaved.
        pairs = torch.unflatten(qk, 0, (-1, 2, stack.head_dim // 2)).transpose(1, 2)
        return torch.cat([pairs.flatten(0, 2), v])

    return convert
