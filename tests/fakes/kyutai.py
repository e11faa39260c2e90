"""Random models of the Kyutai family, with sizes to choose."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from model.kyutai.config import KyutaiConfig
from model.kyutai.tensors import expected_tensors


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
