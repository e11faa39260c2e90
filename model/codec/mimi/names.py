"""What the tensors of a Mimi are called where it is published, and how they become ours.

Two layouts hold the same codec: that of Kyutai's own files, and that of Hugging Face's
`transformers`. They differ in names and in one thing of substance: `transformers` rotates the
halves of a head against each other instead of neighbours, and has reordered queries and keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor

from model.codec.mimi.config import MimiConfig
from model.files.published import Source

Layout = Literal["kyutai", "transformers"]
Shape = tuple[int, ...]

# One tensor that the original training tool leaves in the file; it is not needed.
_IGNORED = {"kyutai": "_initialized", "transformers": "initialized"}

# A name that a file has, found by which only one of the layouts has it.
_MARKS: Mapping[str, Layout] = {
    "encoder.model.0.conv.conv.weight": "kyutai",
    "encoder.layers.0.conv.weight": "transformers",
}

# In old files of Kyutai's layout.
_OLD_NAMES = {
    "inited": "_initialized",
    "cluster_size": "cluster_usage",
    "embed_avg": "embedding_sum",
    "embed_sum": "embedding_sum",
}

# ours, Kyutai's, transformers'.
_LAYER_NAMES = (
    ("norm1.weight", "norm1.weight", "input_layernorm.weight"),
    ("norm1.bias", "norm1.bias", "input_layernorm.bias"),
    ("attention.out.weight", "self_attn.out_proj.weight", "self_attn.o_proj.weight"),
    ("scale1", "layer_scale_1.scale", "self_attn_layer_scale.scale"),
    ("norm2.weight", "norm2.weight", "post_attention_layernorm.weight"),
    ("norm2.bias", "norm2.bias", "post_attention_layernorm.bias"),
    ("up.weight", "linear1.weight", "mlp.fc1.weight"),
    ("down.weight", "linear2.weight", "mlp.fc2.weight"),
    ("scale2", "layer_scale_2.scale", "mlp_layer_scale.scale"),
)


def layout_of(names: set[str]) -> Layout | None:
    """Say which layout a file with tensors of these names has, if any."""
    found = [layout for mark, layout in _MARKS.items() if mark in names]
    return found[0] if len(found) == 1 else None


def modern(name: str, layout: Layout) -> str:
    """Return today's name of a tensor."""
    stem, _, last = name.rpartition(".")
    if layout == "kyutai" and stem.endswith("_codebook"):
        return f"{stem}.{_OLD_NAMES.get(last, last)}"
    return name


def is_ignored(name: str, config: MimiConfig, layout: Layout) -> bool:
    """Say whether a tensor may be in a file although nothing needs it."""
    return name in {f"{prefix}.{_IGNORED[layout]}" for _, _, prefix in _codebooks(config, layout)}


def sources(config: MimiConfig, layout: Layout) -> dict[str, Source]:
    """Return for every tensor of `Mimi` the published ones that it is made of.

    The codebooks of each half are in one tensor of ours and in many published ones.
    """
    found = dict(_convolutions(config, layout))
    for side in ("encoder", "decoder"):
        theirs = f"{side}_transformer" + (".transformer" if layout == "kyutai" else "")
        for i in range(config.num_layers):
            layer = f"{theirs}.layers.{i}"
            found |= _layer(config, layout, f"{side}.transformer.layers.{i}", layer)
    return found | _quantiser(config, layout)


def _convolutions(config: MimiConfig, layout: Layout) -> Iterator[tuple[str, Source]]:
    # A convolution is wrapped once, or twice where the change to frames has a module of its own.
    is_kyutai = layout == "kyutai"
    conv = ".conv.conv" if is_kyutai else ".conv"
    transposed = ".convtr.convtr" if is_kyutai else ".conv"
    encoder, decoder = (f"{s}.{'model' if is_kyutai else 'layers'}" for s in ("encoder", "decoder"))
    down = "downsample.conv.conv.conv" if is_kyutai else "downsample.conv"
    up = "upsample.convtr.convtr.convtr" if is_kyutai else "upsample.conv"
    f, dim, count, k = config.filters, config.dim, len(config.ratios), config.residual_kernel
    widest, steps = f << count, config.frame_steps

    yield from _conv("encoder.analysis.stem", f"{encoder}.0{conv}", (f, 1, config.kernel))
    for i, ratio in enumerate(reversed(config.ratios)):
        ours, width = f"encoder.analysis.stages.{i}", f << i
        yield from _residual(ours, f"{encoder}.{1 + 3 * i}.block", conv, width, k)
        shape = (2 * width, width, 2 * ratio)
        yield from _conv(f"{ours}.resample", f"{encoder}.{3 + 3 * i}{conv}", shape)
    end = f"{encoder}.{2 + 3 * count}{conv}"
    yield from _conv("encoder.analysis.out", end, (dim, widest, config.last_kernel))
    yield (
        "encoder.to_frame.conv.linear.weight",
        Source({f"{down}.weight": (dim, dim, 2 * steps)}, _taps_to_linear),
    )
    yield (
        "decoder.to_steps.weight",
        Source({f"{up}.weight": (dim, 1, 2 * steps)}, _depthwise_to_steps),
    )
    stem = f"{decoder}.0{conv}"
    yield from _conv("decoder.synthesis.stem", stem, (widest, dim, config.kernel))
    for i, ratio in enumerate(config.ratios):
        ours, width = f"decoder.synthesis.stages.{i}", f << (count - 1 - i)
        shape = (2 * width, width, 2 * ratio)
        yield from _transposed(f"{ours}.resample", f"{decoder}.{2 + 3 * i}{transposed}", shape)
        yield from _residual(ours, f"{decoder}.{3 + 3 * i}.block", conv, width, k)
    end = f"{decoder}.{2 + 3 * count}{conv}"
    yield from _conv("decoder.synthesis.out", end, (1, f, config.last_kernel))


def _conv(ours: str, theirs: str, shape: Shape) -> Iterator[tuple[str, Source]]:
    yield f"{ours}.linear.weight", Source({f"{theirs}.weight": shape}, _taps_to_linear)
    yield f"{ours}.linear.bias", Source({f"{theirs}.bias": shape[:1]}, _as_is)


def _transposed(ours: str, theirs: str, shape: Shape) -> Iterator[tuple[str, Source]]:
    ratio = shape[2] // 2
    yield f"{ours}.linear.weight", Source({f"{theirs}.weight": shape}, _transposed_to_linear)
    bias = {f"{theirs}.bias": shape[1:2]}
    yield f"{ours}.linear.bias", Source(bias, lambda tensor: tensor.repeat(ratio))


def _residual(
    ours: str, block: str, conv: str, width: int, kernel: int
) -> Iterator[tuple[str, Source]]:
    half = width // 2
    yield from _conv(f"{ours}.residual.conv", f"{block}.1{conv}", (half, width, kernel))
    weight = {f"{block}.3{conv}.weight": (width, half, 1)}
    yield f"{ours}.residual.out.weight", Source(weight, lambda tensor: tensor.squeeze(2))
    yield f"{ours}.residual.out.bias", Source({f"{block}.3{conv}.bias": (width,)}, _as_is)


def _layer(config: MimiConfig, layout: Layout, ours: str, theirs: str) -> dict[str, Source]:
    dim, ff_dim, heads = config.dim, config.ff_dim, config.num_heads
    shapes = {
        "attention.out.weight": (dim, dim),
        "up.weight": (ff_dim, dim),
        "down.weight": (dim, ff_dim),
    }
    found = {}
    for name, kyutai, transformers in _LAYER_NAMES:
        published = f"{theirs}.{kyutai if layout == 'kyutai' else transformers}"
        found[f"{ours}.{name}"] = Source({published: shapes.get(name, (dim,))}, _as_is)
    if layout == "kyutai":
        qkv = Source({f"{theirs}.self_attn.in_proj_weight": (3 * dim, dim)}, _as_is)
    else:
        parts = {f"{theirs}.self_attn.{name}_proj.weight": (dim, dim) for name in "qkv"}
        qkv = Source(
            parts,
            lambda q, k, v: torch.cat([_interleaved(q, heads), _interleaved(k, heads), v]),
        )
    return found | {f"{ours}.attention.qkv.weight": qkv}


def _codebooks(config: MimiConfig, layout: Layout) -> Iterator[tuple[str, str, str]]:
    """Go through the codebooks: our half, the published half, the published codebook."""
    if layout == "kyutai":
        first, rest, book = "quantizer.rvq_first", "quantizer.rvq_rest", "vq.layers.{}._codebook"
    else:
        first, rest = (f"quantizer.{s}_residual_vector_quantizer" for s in ("semantic", "acoustic"))
        book = "layers.{}.codebook"
    yield "codes.semantic", first, f"{first}.{book.format(0)}"
    for i in range(config.num_codebooks - 1):
        yield "codes.acoustic", rest, f"{rest}.{book.format(i)}"


def _quantiser(config: MimiConfig, layout: Layout) -> dict[str, Source]:
    dim, size, width = config.dim, config.codebook_size, config.codebook_dim
    total = "embedding_sum" if layout == "kyutai" else "embed_sum"
    tables: dict[str, dict[str, Shape]] = {}
    found = {}
    for ours, theirs, book in _codebooks(config, layout):
        table = tables.setdefault(f"{ours}.tables", {})
        table |= {f"{book}.{total}": (size, width), f"{book}.cluster_usage": (size,)}
        for name, published, shape in (
            ("to_codes", "input_proj", (width, dim, 1)),
            ("from_codes", "output_proj", (dim, width, 1)),
        ):
            weight = {f"{theirs}.{published}.weight": shape}
            found[f"{ours}.{name}.weight"] = Source(weight, lambda tensor: tensor.squeeze(2))
    return found | {name: Source(table, _means) for name, table in tables.items()}


def _as_is(tensor: Tensor) -> Tensor:
    return tensor


def _taps_to_linear(weight: Tensor) -> Tensor:
    """``[out, in, taps]`` to ``[out, taps * in]``."""
    # A kernel of two taps over channels a and b: the product sees [a(t-1), b(t-1), a(t), b(t)], tap
    # by tap, so the taps have to come before the channels.
    return weight.permute(0, 2, 1).flatten(1)


def _transposed_to_linear(weight: Tensor) -> Tensor:
    """``[in, out, 2 * ratio]`` to ``[ratio * out, 2 * in]``.

    The first half of the taps is what a step adds to its own samples, the second to the next's.
    """
    own_then_next = torch.unflatten(weight, 2, (2, -1))
    return own_then_next.flip(2).permute(3, 1, 2, 0).flatten(2).flatten(0, 1)


def _depthwise_to_steps(weight: Tensor) -> Tensor:
    """``[dim, 1, 2 * steps]`` to ``[2, steps, dim]``, the latent before first."""
    return torch.unflatten(weight.squeeze(1), 1, (2, -1)).flip(1).permute(1, 2, 0)


def _interleaved(weight: Tensor, heads: int) -> Tensor:
    """Undo the order of rows that a rotation of halves wants: pairs become neighbours again."""
    # A head of width 4 lies as [a0 a1 b0 b1] there, where a0 turns with b0 and a1 with b1. Ours
    # wants pairs side by side: [a0 b0 a1 b1].
    return torch.unflatten(weight, 0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def _means(*sums_and_usages: Tensor) -> Tensor:
    """Return codebooks ``[K, size, width]`` of sums and usages in turn, one pair a codebook."""
    pairs = zip(sums_and_usages[::2], sums_and_usages[1::2], strict=True)
    # A code that was hardly ever used keeps a finite entry.
    return torch.stack([total / usage.clamp_min(1e-5)[:, None] for total, usage in pairs])
