"""Turn a checkpoint into one whose linears are in NF4, one tensor after the other.

What comes out is a directory that is served like any other: our own tensors, as
`model.kyutai.weights` describes, beside the codec, the text pieces and the voices as they were. The
weights of steps that are never taken, PersonaPlex's for the user's codes, are left out.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from model.errors import ConfigError
from model.files.published import TensorFile
from model.files.writer import TensorWriter
from model.kyutai.check import CONFIG_FILE, QUANTISED_FILE, Checkpoint, sound_directory
from model.kyutai.voices import VOICES_FOLDER
from model.kyutai.weights import (
    FORMAT,
    FORMAT_KEY,
    STATE,
    Weights,
    levels,
    open_weights,
    packed_shapes,
    packed_state,
    skeleton,
)
from model.transformer.linears import hot_linears

MIMI_FILE = "mimi.safetensors"  # of a codec that was in the language model's file

Progress = Callable[[str, int, int], None]  # the tensor that is done, how many are, of how many


def quantize_checkpoint(source: Path, target: Path, progress: Progress | None = None) -> Checkpoint:
    """Write a checkpoint with linears in NF4.

    It is written beside `target` and renamed when it is whole: an interrupted run leaves nothing
    there, and the next one begins anew.

    Args:
        source: directory of a sound checkpoint in any layout.
        target: directory that does not exist yet.
        progress: called after every tensor.

    Returns:
        What `source` holds.

    Raises:
        WeightsError: if something is wrong with `source`.
        ConfigError: if `target` exists, or `source` is quantised already.
    """
    if target.exists():
        raise ConfigError(f"{target}: exists already")
    found = sound_directory(source)
    if found.layout == "nf4":
        raise ConfigError(f"{source}: is in NF4 already")
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _write_lm(found, partial / QUANTISED_FILE, progress or (lambda *_: None))
        _copy_others(source, found, partial)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return found


def _write_lm(found: Checkpoint, path: Path, progress: Progress) -> None:
    assert found.config is not None
    weights = open_weights(TensorFile(found.files["lm"]), found.config)
    lm = skeleton(found.config)
    shapes = {name: tuple(tensor.shape) for name, tensor in lm.state_dict().items()}
    hot = {f"{name}.weight" for name in hot_linears(lm)}
    names = list(weights.names)
    # A safetensors file begins with a header that says where each tensor lies. So types and shapes
    # of all of them are worked out before the first number is read.
    specs: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name in names:
        if name in hot:
            specs |= _packed_specs(name, shapes[name], weights)
        else:
            specs[name] = (weights.dtype(name), shapes[name])
    metadata = {"format": "pt", FORMAT_KEY: FORMAT}
    with TensorWriter(path, specs, metadata) as writer:
        for i, name in enumerate(names):
            if name in hot:
                _write_packed(writer, name, shapes[name], weights)
            else:
                writer.write(name, weights.read(name))
            progress(name, i + 1, len(names))


def _packed_specs(
    name: str, shape: tuple[int, ...], weights: Weights
) -> dict[str, tuple[str, tuple[int, ...]]]:
    parts, state = packed_shapes(shape), packed_state(shape, weights.dtype(name))
    return {
        name: ("U8", parts[""]),
        f"{name}.absmax": ("F32", parts["absmax"]),
        f"{name}.quant_map": ("F32", parts["quant_map"]),
        f"{name}.{STATE}": ("U8", tuple(state.shape)),
    }


def _write_packed(
    writer: TensorWriter, name: str, shape: tuple[int, ...], weights: Weights
) -> None:
    packed, absmax = weights.read_nf4(name)
    # bitsandbytes keeps two levels a byte in a column, [size / 2, 1].
    writer.write(name, packed[:, None])
    writer.write(f"{name}.absmax", absmax)
    writer.write(f"{name}.quant_map", levels())
    writer.write(f"{name}.{STATE}", packed_state(shape, weights.dtype(name)))


def _copy_others(source: Path, found: Checkpoint, target: Path) -> None:
    assert found.config is not None
    files = [found.files["tokenizer"]]
    if (source / CONFIG_FILE).exists():
        files.append(source / CONFIG_FILE)
    if name := found.config.files.get("mimi_config"):
        files.append(source / name)
    if found.mimi_prefix:
        _write_mimi(found, target / MIMI_FILE)
    else:
        files.append(found.files["mimi"])
    for path in files:
        shutil.copyfile(path, target / path.name)
    if found.voices:
        (target / VOICES_FOLDER).mkdir()
        for path in found.voices.values():
            shutil.copyfile(path, target / VOICES_FOLDER / path.name)


def _write_mimi(found: Checkpoint, path: Path) -> None:
    """Write the codec that is in the language model's file by itself."""
    file, prefix = TensorFile(found.files["mimi"]), found.mimi_prefix
    names = [name for name in file.shapes if name.startswith(prefix)]
    specs = {n.removeprefix(prefix): (file.dtypes[n], file.shapes[n]) for n in names}
    with TensorWriter(path, specs, {"format": "pt"}) as writer:
        for name in names:
            tensor = file.read_raw(name, file.shapes[name], file.dtypes[name])
            writer.write(name.removeprefix(prefix), tensor)
