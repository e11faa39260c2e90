"""Load Mimi from a published file, strictly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from model.codec.mimi.codec import Mimi
from model.codec.mimi.config import MimiConfig
from model.codec.mimi.names import Layout, is_ignored, layout_of, modern, sources
from model.errors import ConfigError, WeightsError
from model.files.published import TensorFile
from model.transformer.layout import for_few_rows


def load_mimi(
    path: Path,
    config: MimiConfig | None = None,
    *,
    num_codebooks: int | None = None,
    prefix: str = "",
) -> Mimi:
    """Read Mimi from a safetensors file in Kyutai's layout or in that of `transformers`.

    Args:
        path: of the file.
        config: sizes of what is in it; None means the published codec's.
        num_codebooks: how many codebooks to use, the semantic one included; None means all. The
            others are checked and left in the file.
        prefix: of the codec's names in a file that holds more than it, "audio_encoder." in
            `transformers`' Moshi.

    Returns:
        The codec in float32 on the CPU, for inference.

    Raises:
        WeightsError: naming the file and the tensor that is missing, cut short, left over, or has
            another shape (got and expected).
        ConfigError: if there are not so many codebooks.
    """
    config = config or MimiConfig()
    if num_codebooks is not None and not 2 <= num_codebooks <= config.num_codebooks:
        raise ConfigError(
            f"Mimi: expected 2 to {config.num_codebooks} codebooks, got {num_codebooks}"
        )
    file = TensorFile(path)
    layout = check_mimi(file, config, prefix)
    with torch.device("meta"):  # no second copy of the weights
        mimi = Mimi(replace(config, num_codebooks=num_codebooks or config.num_codebooks))
    names = {modern(name, layout): full for name, full in _published(file, prefix).items()}
    targets = mimi.state_dict()
    used = sources(mimi.config, layout)
    assert used.keys() == targets.keys()
    state: dict[str, Tensor] = {}
    for name, source in used.items():
        parts = [file.read(names[n], shape) for n, shape in source.tensors.items()]
        tensor = source.convert(*parts)
        assert tensor.shape == targets[name].shape, name
        # A transformer step has one row a stream; a convolution has one a sample.
        # Convolutions have many rows.
        is_for_few = ".transformer." in name and tensor.dim() == 2
        state[name] = for_few_rows(tensor) if is_for_few else tensor.contiguous()
    mimi.load_state_dict(state, assign=True)
    mimi.prepare()
    return mimi.eval().requires_grad_(requires_grad=False)


def check_mimi(file: TensorFile, config: MimiConfig, prefix: str = "") -> Layout:
    """Compare the names, shapes and types in a file with those of Mimi; nothing is read.

    Returns:
        The layout that the file has.

    Raises:
        WeightsError: as `load_mimi`.
    """
    published = _published(file, prefix)
    layout = layout_of(set(published))
    if layout is None:
        raise WeightsError(f"{file.path}: not a Mimi in a layout that is known")
    in_file = sources(config, layout)
    expected = {n: shape for source in in_file.values() for n, shape in source.tensors.items()}
    names = {modern(name, layout): full for name, full in published.items()}
    for name, shape in expected.items():
        file.check(names.get(name, prefix + name), shape)
    extra = sorted(n for n in names.keys() - expected if not is_ignored(n, config, layout))
    if extra:
        raise WeightsError(f"{file.path}: {names[extra[0]]}: not part of this codec")
    return layout


def _published(file: TensorFile, prefix: str) -> dict[str, str]:
    """Return the full names of the tensors under a prefix, by their names within it."""
    return {n.removeprefix(prefix): n for n in file.shapes if n.startswith(prefix)}
