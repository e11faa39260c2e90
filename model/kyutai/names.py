"""How the tensors of a published checkpoint of the Kyutai family become ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from model.files.published import Source
from model.kyutai.config import KyutaiConfig, Stack
from model.kyutai.tensors import expected_tensors

# Our name, theirs, and what makes the one of the others.
_Entry = tuple[str, Sequence[str], Callable[..., Tensor]]


def sources(config: KyutaiConfig) -> dict[str, Source]:
    """Return for every tensor of `LM` the published ones that it is made of.

    Parts of one published tensor follow each other, so each is read only once.
    """
    shapes = expected_tensors(config)
    return {
        ours: Source({name: shapes[name] for name in theirs}, convert)
        for ours, theirs, convert in _sources(config)
        if theirs
    }


def _sources(config: KyutaiConfig) -> Iterator[_Entry]:
    # The first codebooks are the model's own, the rest the user's. One table for each, stacked.
    made, audio = config.num_made, [f"emb.{i}.weight" for i in range(config.num_codebooks)]
    yield "assistant_emb.table", audio[:made], _stack
    yield "user_emb.table", audio[made:], _stack
    yield from _text("text_emb", "text_emb", config, None)
    yield from _backbone(config, config.backbone)
    yield "norm.weight", ["out_norm.alpha"], torch.flatten
    yield "text_head.weight", ["text_linear.weight"], _as_is
    if config.depth:
        yield from _depth(config, config.depth)
    for name, condition in config.conditioners.items():
        theirs = f"condition_provider.conditioners.{name}"
        if condition.num_rows:
            yield f"conditioners.{name}.embed.weight", [f"{theirs}.embed.weight"], _as_is
        yield f"conditioners.{name}.out.weight", [f"{theirs}.output_proj.weight"], _as_is
        yield f"conditioners.{name}.padding", [f"{theirs}.learnt_padding"], torch.flatten


def _text(ours: str, theirs: str, config: KyutaiConfig, rank: int | None) -> Iterator[_Entry]:
    yield f"{ours}.weight", [f"{theirs}.weight"], _as_is
    if config.has_two_texts:
        yield f"{ours}.first_out.weight", [f"{theirs}.out1.weight"], _as_is
        yield f"{ours}.second_out.weight", [f"{theirs}.out2.weight"], _as_is
    elif rank:
        yield f"{ours}.out.weight", [f"{theirs}.low_rank.weight"], _as_is


def _backbone(config: KyutaiConfig, stack: Stack) -> Iterator[_Entry]:
    for i in range(stack.num_layers):
        ours, theirs = f"layers.{i}", f"transformer.layers.{i}"
        qkv = [f"{theirs}.self_attn.in_proj_weight"]
        yield f"{ours}.attention.qkv.weight", qkv, _neighbours(stack)
        yield f"{ours}.attention.out.weight", [f"{theirs}.self_attn.out_proj.weight"], _as_is
        yield from _norms_and_mlp(ours, theirs, f"{theirs}.gating")
        # Queries come from the conversation, keys and values from the condition. They are published
        # in one tensor and used at different times: the latter once a session.
        if config.has_cross_attention:
            cross, qkv = f"{ours}.cross", [f"{theirs}.cross_attention.in_proj_weight"]
            yield f"{cross}.q.weight", qkv, _rows(0, stack.dim)
            yield f"{cross}.kv.weight", qkv, _rows(stack.dim, 3 * stack.dim)
            yield f"{cross}.out.weight", [f"{theirs}.cross_attention.out_proj.weight"], _as_is
            for name in ("weight", "bias"):
                yield f"{cross}.norm.{name}", [f"{theirs}.norm_cross.{name}"], _as_is


def _depth(config: KyutaiConfig, stack: Stack) -> Iterator[_Entry]:
    made, dim = config.num_made, stack.dim
    sets = range(max(config.depth_sets[:made]) + 1)
    # One matrix for all sets, below one another: a single product gives the inputs of all
    # codebooks.
    yield "depth.in_proj.weight", [f"depformer_in.{w}.weight" for w in sets], _cat
    yield from _text("depth.text_emb", "depformer_text_emb", config, config.depth_rank)
    yield "codebooks.table", [f"depformer_emb.{k}.weight" for k in range(made - 1)], _stack
    if config.depth_rank:
        for k in range(made - 1):
            low_rank = [f"depformer_emb.{k}.low_rank.weight"]
            yield f"depth.code_proj.{k}.weight", low_rank, _as_is
    # Published: one tensor for a layer, with queries, keys and values of all sets below one
    # another, [sets * 3 * dim, dim]. Ours: a layer for each set. With two sets and six layers, ours
    # are layers 0 to 5 for the first and 6 to 11 for the second.
    for i in range(stack.num_layers):
        theirs = f"depformer.layers.{i}"
        ours = [f"depth.layers.{w * stack.num_layers + i}" for w in sets]
        for w in sets:  # the sets lie one after the other
            qkv = [f"{theirs}.self_attn.in_proj_weight"]
            yield f"{ours[w]}.attention.qkv.weight", qkv, _rows(3 * w * dim, 3 * (w + 1) * dim)
        for w in sets:
            out = [f"{theirs}.self_attn.out_proj.weight"]
            yield f"{ours[w]}.attention.out.weight", out, _rows(w * dim, (w + 1) * dim)
        for w in sets:
            yield from _norms_and_mlp(ours[w], theirs, f"{theirs}.gating.{w}")
    for k in range(made):
        head = f"depth.heads.{k}"
        if config.has_depth_norms:
            for name in ("weight", "bias"):
                yield f"{head}.0.{name}", [f"depformer_norms.{k}.{name}"], _as_is
            head = f"{head}.1"
        yield f"{head}.weight", [f"linears.{k}.weight"], _as_is


def _norms_and_mlp(ours: str, theirs: str, gating: str) -> Iterator[_Entry]:
    yield f"{ours}.norm1.weight", [f"{theirs}.norm1.alpha"], torch.flatten
    yield f"{ours}.norm2.weight", [f"{theirs}.norm2.alpha"], torch.flatten
    yield f"{ours}.mlp.gate_up.weight", [f"{gating}.linear_in.weight"], _as_is
    yield f"{ours}.mlp.down.weight", [f"{gating}.linear_out.weight"], _as_is


def _as_is(tensor: Tensor) -> Tensor:
    return tensor


def _stack(*tensors: Tensor) -> Tensor:
    return torch.stack(tensors)


def _cat(*tensors: Tensor) -> Tensor:
    return torch.cat(tensors)


def _rows(start: int, stop: int) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor[start:stop]


def _neighbours(stack: Stack) -> Callable[[Tensor], Tensor]:
    """Return what reorders queries and keys so that the channels that rotate are neighbours."""
    if stack.rope == "neighbours":
        return _as_is
    # Only queries and keys rotate; the rows of values stay where they are.
    heads = stack.num_heads + stack.num_kv_heads

    def convert(qkv: Tensor) -> Tensor:
        qk, v = torch.split(qkv, [heads * stack.head_dim, stack.num_kv_heads * stack.head_dim])
        # [heads * head_dim, dim]
        pairs = torch.unflatten(qk, 0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)
        return torch.cat([pairs, v])

    return convert
