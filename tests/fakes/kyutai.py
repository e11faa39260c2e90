"""Models of the Kyutai family: random ones, those in a directory, the sizes of published ones."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from model.codec.mimi import Mimi, load_mimi
from model.kyutai.check import sound_directory
from model.kyutai.config import KyutaiConfig
from model.kyutai.load import load_lm
from model.kyutai.tensors import expected_tensors
from model.precision import Linears
from model.transformer.lm import LM

# As their `config.json` have them.
PERSONAPLEX = {"model_type": "personaplex", "version": "7b-v1"}
HIBIKI_2B: dict[str, Any] = {
    "depformer_dim": 1024, "depformer_dim_feedforward": 3072, "depformer_num_heads": 16,
    "depformer_num_layers": 4, "depformer_low_rank_embeddings": 128, "card": 2048, "n_q": 32,
    "model_type": "hibiki", "dim": 2560, "num_heads": 20, "num_layers": 24, "hidden_scale": 4.125,
    "context": 1500, "max_period": 100_000, "text_card": 48_000, "dep_q": 16,
    "delays": [0, *(0, *[2] * 15) * 2],
    "depformer_weights_per_step_schedule": [*range(8), *[8] * 8],
    "conditioners": {
        "description": {"type": "lut", "lut": {"n_bins": 31, "dim": 16, "possible_values": ["x"]}}
    },
    "fuser": {"sum": ["description"], "cross": []},
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A model and its codec."""

    config: KyutaiConfig
    lm: LM
    mimi: Mimi


def load_directory(
    directory: Path, dtype: torch.dtype = torch.float32, *, linears: Linears = "dense"
) -> Loaded:
    """Read a directory as an engine does."""
    found = sound_directory(directory)
    config = found.config
    assert config is not None
    mimi = load_mimi(
        found.files["mimi"],
        found.mimi,
        num_codebooks=config.num_mimi_codebooks,
        prefix=found.mimi_prefix,
    )
    return Loaded(config, load_lm(found.files["lm"], config, dtype, linears=linears), mimi)


def write_zeros(path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str, size: int) -> None:
    """Write a file with these tensors, all zeros, of whatever size: it takes no room on the disk.

    Args:
        path: of the file.
        shapes: by name.
        dtype: of all, as a header calls it.
        size: bytes of a number.
    """
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * size
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(path, 8 + len(text) + end)


def random_moshi(golden: Path, directory: Path, **sizes: object) -> tuple[KyutaiConfig, Path]:
    """Write `model.safetensors` in bf16 and `config.json`, and return what the latter says.

    Args:
        golden: directory of the golden cases, whose small Moshi this is like.
        directory: that is written to.
        **sizes: what is different; without any, widths are multiples of 16, as int8 needs them.
    """
    values = json.loads((golden / "moshi.json").read_text())
    values |= {"hidden_scale": 3.0, "depformer_dim_feedforward": 48, **sizes}
    (directory / "config.json").write_text(json.dumps(values))
    config = KyutaiConfig.from_dict(values)
    tensors = {
        name: (torch.randn(shape) * shape[-1] ** -0.5).bfloat16()
        for name, shape in expected_tensors(config).items()
    }
    save_file(tensors, directory / "model.safetensors")
    return config, directory / "model.safetensors"
