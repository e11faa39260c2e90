"""Names and shapes of all tensors in a published checkpoint of the Kyutai family.

From these alone a file is known to be whole and of the right model before anything is read, and
what it costs in memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from model.kyutai.config import KyutaiConfig, Stack

Shape = tuple[int, ...]


def expected_tensors(config: KyutaiConfig) -> dict[str, Shape]:
    """Return the shape of every tensor of a checkpoint in Kyutai's layout, by name."""
    return dict(_tensors(config))


def unused_tensors(config: KyutaiConfig) -> set[str]:
    """Return the names of tensors that a checkpoint may have although nothing uses them."""
    names = {f"extra_heads.{i}.weight" for i in range(config.num_extra_heads)}
    if config.has_two_texts:  # such an embedding projects each piece by itself
        names.add("depformer_text_emb.low_rank.weight")
    return names


def num_parameters(config: KyutaiConfig) -> int:
    """Return how many numbers the tensors hold."""
    return sum(math.prod(shape) for _, shape in _tensors(config))


def _tensors(config: KyutaiConfig) -> Iterator[tuple[str, Shape]]:
    dim, rows = config.backbone.dim, config.card + 1
    # The order is that of a published file; nothing depends on it but the reading, which then goes
    # through a file from front to back.
    for i in range(config.num_codebooks):
        yield f"emb.{i}.weight", (rows, dim)
    yield from _text_embedding("text_emb", config, dim, None)
    yield "text_linear.weight", (config.text_card_out, dim)
    yield from _backbone(config)
    yield "out_norm.alpha", (1, 1, dim)
    if config.depth:
        yield from _depth(config, config.depth)
    for name, condition in config.conditioners.items():
        prefix = f"condition_provider.conditioners.{name}"
        if condition.num_rows:
            yield f"{prefix}.embed.weight", (condition.num_rows, condition.dim)
        yield f"{prefix}.output_proj.weight", (dim, condition.dim)
        yield f"{prefix}.learnt_padding", (1, 1, dim)


def _text_embedding(
    name: str, config: KyutaiConfig, dim: int, rank: int | None
) -> Iterator[tuple[str, Shape]]:
    width = rank or dim
    yield f"{name}.weight", (config.text_card + 1, width)
    if config.has_two_texts:
        yield f"{name}.out1.weight", (dim, width)
        yield f"{name}.out2.weight", (dim, width)
    elif rank:
        yield f"{name}.low_rank.weight", (dim, rank)


def _backbone(config: KyutaiConfig) -> Iterator[tuple[str, Shape]]:
    stack = config.backbone
    dim = stack.dim
    kv_dim = stack.num_kv_heads * stack.head_dim
    for i in range(stack.num_layers):
        layer = f"transformer.layers.{i}"
        yield f"{layer}.self_attn.in_proj_weight", (dim + 2 * kv_dim, dim)
        yield f"{layer}.self_attn.out_proj.weight", (dim, dim)
        yield f"{layer}.norm1.alpha", (1, 1, dim)
        yield f"{layer}.norm2.alpha", (1, 1, dim)
        yield from _gated(f"{layer}.gating", stack)
        if config.has_cross_attention:
            yield f"{layer}.cross_attention.in_proj_weight", (3 * dim, dim)
            yield f"{layer}.cross_attention.out_proj.weight", (dim, dim)
            yield f"{layer}.norm_cross.weight", (dim,)
            yield f"{layer}.norm_cross.bias", (dim,)


def _depth(config: KyutaiConfig, stack: Stack) -> Iterator[tuple[str, Shape]]:
    dim, rank, sets = stack.dim, config.depth_rank, config.num_depth_sets
    for w in range(sets):
        yield f"depformer_in.{w}.weight", (dim, config.backbone.dim)
    yield from _text_embedding("depformer_text_emb", config, dim, rank)
    for k in range(config.num_generated - 1):
        yield f"depformer_emb.{k}.weight", (config.card + 1, rank or dim)
        if rank:
            yield f"depformer_emb.{k}.low_rank.weight", (dim, rank)
    for i in range(stack.num_layers):
        layer = f"depformer.layers.{i}"
        # The sets lie one after the other: queries, keys and values of the first, of the second.
        yield f"{layer}.self_attn.in_proj_weight", (sets * 3 * dim, dim)
        yield f"{layer}.self_attn.out_proj.weight", (sets * dim, dim)
        yield f"{layer}.norm1.alpha", (1, 1, dim)
        yield f"{layer}.norm2.alpha", (1, 1, dim)
        for w in range(sets):
            yield from _gated(f"{layer}.gating.{w}", stack)
    for k in range(config.num_generated):
        if config.has_depth_norms:
            yield f"depformer_norms.{k}.weight", (dim,)
            yield f"depformer_norms.{k}.bias", (dim,)
        yield f"linears.{k}.weight", (config.card, dim)


def _gated(name: str, stack: Stack) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.linear_in.weight", (2 * stack.ff_dim, stack.dim)
    yield f"{name}.linear_out.weight", (stack.dim, stack.ff_dim)
