"""Which layout a published language model has, and how its tensors become those of Kyutai's.

Kyutai's own layout is what everything else here speaks of (`model.kyutai.tensors`). Beside it there
are

* its int8 variant: a linear's weight is int8 and comes with `weight_scb`, the largest magnitude of
  each row, which 127 stands for; attention may be split by weight set, `in_projs.0.weight`;
* PersonaPlex with the depth weights of Moshi's 8 codebooks only; those of the user's, which would
  be copies and whose codes are thrown away, are not needed;
* that of Hugging Face's `transformers` (`model.kyutai.transformers`).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from model.errors import WeightsError
from model.files.published import Source, TensorFile
from model.kyutai import transformers
from model.kyutai.config import KyutaiConfig
from model.kyutai.tensors import expected_tensors, unused_tensors

Layout = Literal["kyutai", "int8", "transformers"]

_MARKS: dict[str, str] = {
    "text_emb.weight": "kyutai",
    transformers.MARK: "transformers",
}
# Of the same models, for other programs: a name by which each is known.
_FOREIGN = {
    "depformer.slices.0.emb.weight": "MLX",
    "depformer.0.linear_in.weight": "candle",
    "backbone.layers.0.attn.q_proj.weight": "Sesame's CSM",
    "lora_A": "LoRA adapters",
}
_SCALE = "_scb"
_INT8_MOST = 127.0  # what the largest magnitude of a row is stored as


class PublishedWeights:
    """The tensors of a published language model under Kyutai's names, whatever its layout.

    Args:
        file: that holds them.
        config: sizes; for PersonaPlex it may ask for more depth weights than there are.

    Attributes:
        file: as given.
        config: sizes of what the file holds.
        layout: of the file.

    Raises:
        WeightsError: naming the tensor that is missing, left over, or has another shape or type
            (got and expected). Nothing is read.
    """

    def __init__(self, file: TensorFile, config: KyutaiConfig) -> None:
        self.file = file
        self.layout = _layout_of(file)
        self.config = _with_sets_that_there_are(file, config)
        if self.layout == "transformers":
            self._sources = transformers.sources(self.config)
        else:
            self._sources = dict(_kyutai_sources(file, self.config))
        self._check()
        # Parts of a tensor follow each other; a stack over weight sets is needed once for each.
        # Queries of the first weight set, its keys, the queries of the second set: all are slices
        # of one published tensor. Keeping the last one read means that it is read once.
        self._read_source = functools.lru_cache(maxsize=1)(self._read_one)
        self._read_stack = functools.lru_cache(maxsize=2)(file.read)

    def read(self, name: str) -> Tensor:
        """Return a tensor by its name in Kyutai's layout, float32."""
        return self._read_source(name)

    def dtype(self, name: str) -> str:
        """Return the type of a tensor as the header calls it, float32 for one that is int8."""
        types = {self.file.dtypes[n] for n in self._sources[name].tensors}
        return types.pop() if len(types) == 1 else "F32"

    def _check(self) -> None:
        used: set[str] = set()
        for source in self._sources.values():
            self.file.check_source(source)
            # Everything that is in the file has to be used or known to be superfluous. A tensor
            # that nobody knows means that the file is of another model, or of a newer one.
            used |= source.tensors.keys()
        unused = unused_tensors(self.config)
        extra = sorted(
            name
            for name in self.file.shapes.keys() - used
            if name.removesuffix(_SCALE) not in unused
        )
        if self.layout == "transformers":
            extra = [name for name in extra if not name.startswith(transformers.MIMI_PREFIX)]
        if extra:
            raise WeightsError(f"{self.file.path}: {extra[0]}: not part of this model")

    def _read_one(self, name: str) -> Tensor:
        source = self._sources[name]
        parts = [
            self._read_stack(n, shape)
            if len(shape) == 3 and self.layout == "transformers"
            else self.file.read(n, shape, source.types.get(n))
            for n, shape in source.tensors.items()
        ]
        return source.convert(*parts)


def _layout_of(file: TensorFile) -> Layout:
    found = [layout for mark, layout in _MARKS.items() if mark in file.shapes]
    if found == ["transformers"]:
        return "transformers"
    if found == ["kyutai"]:
        return "int8" if "I8" in file.dtypes.values() else "kyutai"
    # A user who fetched the files of the wrong program is told so, and not that some tensor is
    # missing.
    for mark, program in _FOREIGN.items():
        if any(mark in name for name in file.shapes):
            raise WeightsError(f"{file.path}: a file for {program}: the one for PyTorch is needed")
    raise WeightsError(f"{file.path}: text_emb.weight: missing; not a language model of the family")


def _with_sets_that_there_are(file: TensorFile, config: KyutaiConfig) -> KyutaiConfig:
    """Return what PersonaPlex is when its file has no weights for the user's codebooks."""
    # NVIDIA's file has `linears.0` to `linears.15`; one that was made for serving may end with
    # `linears.7`. Which it is shows by the name of the first one that would be left out.
    made = config.num_made
    if config.kind != "personaplex" or f"linears.{made}.weight" in file.shapes:
        return config
    return replace(config, num_generated=made, depth_sets=config.depth_sets[:made])


def _kyutai_sources(file: TensorFile, config: KyutaiConfig) -> Iterator[tuple[str, Source]]:
    for name, shape in expected_tensors(config).items():
        sets = config.num_depth_sets if name.startswith("depformer.") else 1
        yield name, _spelled(file, name, shape, sets)


def _spelled(file: TensorFile, name: str, shape: tuple[int, ...], sets: int) -> Source:
    """Return where one of Kyutai's tensors is, by the names that it has in this file."""
    spellings = _spellings(name, sets)
    parts = next((s for s in spellings if not file.shapes.keys().isdisjoint(s)), [name])
    # A tensor of 3 * 8 * 1024 rows that comes in 8 parts has 3 * 1024 rows in each.
    each = (shape[0] // len(parts), *shape[1:])
    if all(file.dtypes.get(part) != "I8" for part in parts):
        return Source(dict.fromkeys(parts, each), _joined)
    tensors: dict[str, tuple[int, ...]] = {}
    for part in parts:
        tensors |= {part: each, f"{part}{_SCALE}": each[:1]}
    types = {n: "F32" if n.endswith(_SCALE) else "I8" for n in tensors}
    return Source(tensors, _from_int8, types)


def _spellings(name: str, sets: int) -> Iterator[list[str]]:
    """Go through what a tensor may be called: whole, or in as many parts as it has weight sets."""
    yield [name]
    stem = name.removesuffix(".in_proj_weight")
    # Kyutai's own files have `in_proj_weight`. Its int8 files have `in_proj.weight` for the
    # backbone and `in_projs.0.weight`, `in_projs.1.weight` and so on for the depth transformer.
    if stem != name:
        yield [f"{stem}.in_proj.weight"]
        yield [f"{stem}.in_projs.{i}.weight" for i in range(sets)]
    stem = name.removesuffix(".out_proj.weight")
    if stem != name:
        yield [f"{stem}.out_projs.{i}.weight" for i in range(sets)]


def _joined(*parts: Tensor) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _from_int8(*levels_and_scales: Tensor) -> Tensor:
    """Return the weight of levels and the largest magnitude of each row, one pair a part."""
    # A row whose largest magnitude is 0.5 stores 0.5 as 127 and 0.1 as 25: read back, that is 25 *
    # 0.5 / 127 = 0.0984.
    pairs = zip(levels_and_scales[::2], levels_and_scales[1::2], strict=True)
    return _joined(*(levels * (most / _INT8_MOST)[:, None] for levels, most in pairs))
