"""PersonaPlex's voices: converted once from what NVIDIA publishes, then read like other weights.

`voices.tgz` holds a pickle for each voice. `convert_voices` turns it into `voices/NAME.safetensors`
beside it, without running any of it; nothing else here reads pickles.
"""

from __future__ import annotations

import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model.errors import WeightsError
from model.files.published import TensorFile
from model.files.unpickle import read_tensors
from model.files.writer import TensorWriter
from model.kyutai.config import KyutaiConfig

VOICES_ARCHIVE, VOICES_FOLDER = "voices.tgz", "voices"

_EXTRA_COLUMNS = 3  # of the ring beyond the longest delay, in NVIDIA's program
_MOST_VOICE_BYTES = 1 << 28
_TYPES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}


@dataclass(frozen=True, slots=True, eq=False)
class Voice:
    """How the model is given a voice: what it hears first, and its tokens after that.

    The embeddings are the summed inputs of positions 0 to N - 1, in the place of tokens. The tokens
    are as they stand when position N is next: that of stream k at position p is in column p modulo
    the number of columns, those of position N in column N modulo it; what will be overwritten
    before it is read means nothing.

    Attributes:
        embeddings: float32 [N, dim].
        cache: int64 [streams, columns]: text, the model's codebooks, the user's; -2 where nothing
            was ever.
    """

    embeddings: Tensor
    cache: Tensor


def voice_files(directory: Path) -> dict[str, Path]:
    """Return the files of the converted voices of a checkpoint, by their names, in order."""
    return {path.stem: path for path in sorted((directory / VOICES_FOLDER).glob("*.safetensors"))}


def check_voice(path: Path, config: KyutaiConfig) -> int:
    """Check names, shapes and types of a converted voice without reading it.

    Returns:
        Its length in frames.

    Raises:
        WeightsError: if it does not fit the model.
    """
    file = TensorFile(path)
    shape = file.shapes.get("embeddings", ())
    steps = shape[0] if shape else 1
    file.check("embeddings", (steps, config.backbone.dim))
    file.check("cache", _cache_shape(config), "I64")
    if extra := sorted(file.shapes.keys() - {"embeddings", "cache"}):
        raise WeightsError(f"{path}: {extra[0]}: not part of a voice")
    return steps


def load_voice(path: Path, config: KyutaiConfig) -> Voice:
    """Read a converted voice.

    Args:
        path: `voices/NAME.safetensors`.
        config: of the model that it is for.

    Raises:
        WeightsError: if it does not fit the model, or its tokens are none of the model's.
    """
    steps, file = check_voice(path, config), TensorFile(path)
    voice = Voice(
        file.read("embeddings", (steps, config.backbone.dim)),
        file.read_raw("cache", _cache_shape(config), "I64"),
    )
    # A token may be the first input, one past the last piece or code, so `most` itself is allowed.
    # -1 is nothing at all, and -2 what was never known.
    for what, tokens, most in (
        ("text", voice.cache[:1], config.text_card),
        ("codes", voice.cache[1:], config.card),
    ):
        if tokens.min() < -2 or tokens.max() > most:
            raise WeightsError(
                f"{path}: cache: expected {what} of -2 to {most}, "
                f"got {int(tokens.min())} to {int(tokens.max())}"
            )
    return voice


def convert_voices(directory: Path) -> list[str]:
    """Turn `voices.tgz` of a checkpoint into `voices/`, all of it or nothing.

    Returns:
        Names of the voices.

    Raises:
        WeightsError: if the archive is broken, or a pickle in it holds anything but tensors.
    """
    archive, folder = directory / VOICES_ARCHIVE, directory / VOICES_FOLDER
    partial = directory / f"{VOICES_FOLDER}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        names = _convert(archive, partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return sorted(names)


def _convert(archive: Path, folder: Path) -> list[str]:
    names: list[str] = []
    try:
        # Nothing is extracted: members are read, and their names only serve to name voices.
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                path = Path(member.name)
                # A Mac leaves files beside the real ones whose names begin with a dot.
                if not member.isfile() or path.suffix != ".pt" or path.name.startswith("."):
                    continue
                if member.size > _MOST_VOICE_BYTES:
                    raise WeightsError(f"{archive}: {path.name}: {member.size} bytes are no voice")
                file = tar.extractfile(member)
                assert file is not None
                _write_voice(file.read(), f"{archive}: {path.name}", folder / path.stem)
                names.append(path.stem)
    except (OSError, EOFError, tarfile.TarError) as error:
        raise WeightsError(f"{archive}: cannot be read ({error})") from error
    if not names:
        raise WeightsError(f"{archive}: no voices in it")
    return names


def _write_voice(data: bytes, source: str, stem: Path) -> None:
    tensors = read_tensors(data, source)
    if tensors.keys() != {"embeddings", "cache"}:
        raise WeightsError(f"{source}: expected embeddings and cache, got {sorted(tensors)}")
    embeddings, cache = tensors["embeddings"], tensors["cache"]
    # [N, 1, 1, dim] and [1, streams, columns]: a batch of one.
    if embeddings.dim() != 4 or embeddings.shape[1:3] != (1, 1) or embeddings.dtype not in _TYPES:
        raise WeightsError(
            f"{source}: embeddings: expected [N, 1, 1, dim], got {_kind(embeddings)}"
        )
    if cache.dim() != 3 or len(cache) != 1 or cache.dtype != torch.int64:
        raise WeightsError(f"{source}: cache: expected [1, streams, columns], got {_kind(cache)}")
    voice = {"embeddings": embeddings[:, 0, 0], "cache": cache[0]}
    types = {"embeddings": _TYPES[embeddings.dtype], "cache": "I64"}
    specs = {name: (types[name], tuple(tensor.shape)) for name, tensor in voice.items()}
    with TensorWriter(stem.with_name(f"{stem.name}.safetensors"), specs, {}) as writer:
        for name, tensor in voice.items():
            writer.write(name, tensor)


def _cache_shape(config: KyutaiConfig) -> tuple[int, int]:
    return len(config.delays), max(config.delays) + _EXTRA_COLUMNS


def _kind(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} in {str(tensor.dtype).removeprefix('torch.')}"
