"""Kyutai's own package with random weights, and ours with the very same ones.

Ours are read from a file as Kyutai publishes it, so that the loaders take part. The package is no
dependency: `make test-reference` installs it beside Parley's own, in `.venv/reference`.
"""

from __future__ import annotations

import copy
import importlib
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from model.codec.mimi import Mimi, MimiConfig, load_mimi
from model.kyutai.config import KyutaiConfig
from model.kyutai.load import load_lm
from model.transformer.lm import LM

HOW_TO_GET_IT = (
    "Kyutai's package is not here: `make bench-reference` and `make test-reference` install it "
    "beside Parley's own, in .venv/reference, and put it on the path"
)

# Any: modules of a package that has no types and may not be there.
Values = Mapping[str, Any]

# What a published configuration says besides the model's sizes.
_NOT_SIZES = ("model_type", "tts_config", "stt_config", "lm_gen_config", "model_id")
_PER_STEP = re.compile(r"(.*)\.(in|out)_projs\.(\d+)\.weight")


def moshi(part: str) -> Any:
    """Return a module of Kyutai's package.

    Raises:
        ModuleNotFoundError: saying how to get it.
    """
    try:
        return importlib.import_module(f"moshi.{part}")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(HOW_TO_GET_IT) from error


def lm_sizes(values: Values) -> dict[str, Any]:
    """Return what their constructor takes of a published configuration; it changes what it gets."""
    return copy.deepcopy({k: v for k, v in values.items() if k not in _NOT_SIZES})


def their_lm(values: Values, device: str = "cpu", dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return their language model with random weights, every part of which matters.

    Args:
        values: a published `config.json`.
        device: where it is.
        dtype: of its weights.
    """
    loaders, sizes = moshi("models.loaders"), lm_sizes(values)
    lm: nn.Module = loaders.get_moshi_lm(None, sizes, device=device, dtype=dtype)
    with torch.no_grad():
        for name, parameter in lm.named_parameters():
            if "norm" in name:  # fresh ones do nothing
                # A fresh norm scales by one. If a loader forgot it, nobody would see; with these
                # numbers all would.
                parameter.uniform_(0.5, 1.5)
    return lm


def their_mimi(values: Values, device: str = "cpu") -> nn.Module:
    """Return their codec with random weights, every part of which matters."""
    num_codebooks = values["quantizer"]["n_q"]
    loaders = moshi("models.loaders")
    codec: nn.Module = loaders.get_mimi(None, values, device=device, num_codebooks=num_codebooks)
    shake(codec)
    return codec


def shake(codec: nn.Module) -> None:
    """Give a fresh codec weights that matter: its own scale the layers to almost nothing."""
    state = codec.state_dict()
    for name, tensor in state.items():
        if "layer_scale" in name:
            tensor.uniform_(0.2, 0.6)
        elif name.endswith(("cluster_usage", "bias")):
            tensor.uniform_(0.1, 2.0)
        elif name.endswith(("embedding_sum", "embed_sum")):
            tensor.normal_()
        elif "downsample" in name or "upsample" in name:
            tensor.normal_(std=0.3)
    codec.load_state_dict(state)  # some keep what they computed from the old


def published(module: nn.Module) -> dict[str, Tensor]:
    """Return the weights of one of their modules under the names of published files.

    In memory the projections of each depth step lie apart; in files they are one tensor.
    """
    tensors: dict[str, Tensor] = {}
    steps: dict[str, list[tuple[int, Tensor]]] = {}
    for name, tensor in module.state_dict().items():
        if found := _PER_STEP.fullmatch(name):
            owner, which, step = found.groups()
            fused = f"{owner}.in_proj_weight" if which == "in" else f"{owner}.out_proj.weight"
            steps.setdefault(fused, []).append((int(step), tensor))
        else:
            tensors[name] = tensor.contiguous()
    for name, parts in steps.items():
        # In order of their steps: "10" comes after "9", which texts would not give.
        tensors[name] = torch.cat([tensor for _, tensor in sorted(parts, key=lambda p: p[0])])
    return tensors


def our_lm(theirs: nn.Module, values: Values, dtype: torch.dtype = torch.float32) -> LM:
    """Return our language model with the weights of theirs, on the CPU."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.safetensors"
        save_file(published(theirs), path)
        return load_lm(path, KyutaiConfig.from_dict(values), dtype)


def our_mimi(theirs: nn.Module, values: Values) -> Mimi:
    """Return our codec with the weights of theirs, on the CPU."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "mimi.safetensors"
        save_file(published(theirs), path)
        return load_mimi(path, MimiConfig.from_kyutai(values))
