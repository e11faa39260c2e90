"""Say what a directory with a published checkpoint holds, what is wrong with it, and what it costs.

Only headers are read, so a checkpoint of many gigabytes is checked in a moment.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sentencepiece

from model.codec.mimi import MimiConfig, check_mimi, session_bytes
from model.codec.mimi.names import sources
from model.errors import ConfigError, ParleyError, WeightsError
from model.kyutai.config import KyutaiConfig
from model.kyutai.tensors import expected_tensors, unused_tensors
from model.published import TensorFile

CONFIG_FILE = "config.json"

# Where a file is when config.json does not say.
_PATTERNS: Mapping[str, tuple[str, ...]] = {
    "lm": ("model.safetensors",),
    "mimi": ("tokenizer-*.safetensors", "mimi*.safetensors"),
    "tokenizer": ("tokenizer*.model",),
}
# Their rows are looked up, not multiplied with: they stay as they are where linears are quantised.
_EMBEDDINGS = ("emb.", "text_emb.", "depformer_emb.", "depformer_text_emb.", "condition_provider.")


@dataclass(frozen=True, slots=True)
class Memory:
    """What serving costs, in bytes.

    Attributes:
        weights: of the language model, by how its linears are held: "bf16", "int8", "nf4".
        mimi: weights of the codec, float32, with the codebooks that are used.
        session: state of one session: keys and values of the whole window in bf16, and Mimi's.
    """

    weights: Mapping[str, int]
    mimi: int
    session: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What was found in a directory.

    Attributes:
        config: of the language model; None if it could not be read.
        files: that the checkpoint consists of, as far as they are there: "lm", "mimi", "tokenizer".
        problems: what is missing or wrong, a sentence each; empty if it can be served.
        num_parameters: of the language model.
        memory: that it needs; None without a configuration.
    """

    config: KyutaiConfig | None
    files: Mapping[str, Path]
    problems: tuple[str, ...]
    num_parameters: int = 0
    memory: Memory | None = None


def check_directory(directory: Path, mimi: MimiConfig | None = None) -> Checkpoint:
    """Look at a checkpoint in Kyutai's layout.

    Args:
        directory: with the language model, Mimi, the text pieces and, except for Moshi,
            config.json.
        mimi: sizes of the codec; None means the published one's.
    """
    mimi = mimi or MimiConfig()
    try:
        config = KyutaiConfig.from_dict(_read_config(directory))
    except ParleyError as error:
        return Checkpoint(None, {}, (str(error),))
    files: dict[str, Path] = {}
    problems: list[str] = []
    for what in _PATTERNS:
        try:
            files[what] = _find(directory, what, config.files.get(what))
        except WeightsError as error:
            problems.append(str(error))
    problems += _file_problems(config, files, mimi)
    shapes = expected_tensors(config)
    num_parameters = sum(math.prod(shape) for shape in shapes.values())
    memory = _memory(config, mimi)
    return Checkpoint(config, files, tuple(problems), num_parameters, memory)


def check_lm(file: TensorFile, config: KyutaiConfig) -> None:
    """Compare the names, shapes and types in a file with those of a model; nothing is read.

    Raises:
        WeightsError: naming the tensor that is missing, left over, or has another shape or type.
    """
    expected = expected_tensors(config)
    for name, shape in expected.items():
        file.check(name, shape)
    extra = sorted(file.shapes.keys() - expected - unused_tensors(config))
    if extra:
        raise WeightsError(f"{file.path}: {extra[0]}: not part of this model")


def _read_config(directory: Path) -> Mapping[str, Any]:
    path = directory / CONFIG_FILE
    if not directory.is_dir():
        raise WeightsError(f"{directory}: not a directory")
    if not path.exists():
        return {}
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping, got {type(values).__name__}")
    return values


def _find(directory: Path, what: str, given: str | None) -> Path:
    names = (given,) if given else _PATTERNS[what]
    found = sorted(path for name in names for path in directory.glob(name))
    if len(found) != 1:
        count = ", ".join(path.name for path in found) or "none"
        raise WeightsError(f"{directory}: expected one file {' or '.join(names)}, got {count}")
    return found[0]


def _file_problems(
    config: KyutaiConfig, files: Mapping[str, Path], mimi: MimiConfig
) -> Iterator[str]:
    """Go through what is wrong within the files that are there."""
    for what, path in files.items():
        try:
            if what == "lm":
                check_lm(TensorFile(path), config)
            elif what == "mimi":
                check_mimi(TensorFile(path), mimi)
            else:
                _check_tokenizer(path, config.text_card)
        except WeightsError as error:
            yield str(error)
    if config.num_mimi_codebooks > mimi.num_codebooks:
        yield (
            f"the model needs {config.num_mimi_codebooks} codebooks, "
            f"the codec has {mimi.num_codebooks}"
        )


def _check_tokenizer(path: Path, most_pieces: int) -> None:
    try:
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(path)).get_piece_size()
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"{path}: not a file of text pieces ({error})") from error
    if pieces > most_pieces:
        raise WeightsError(f"{path}: expected at most {most_pieces} text pieces, got {pieces}")


def _memory(config: KyutaiConfig, mimi: MimiConfig) -> Memory:
    linears = rows = others = 0
    for name, shape in expected_tensors(config).items():
        if len(shape) == 2 and not name.startswith(_EMBEDDINGS):
            linears += math.prod(shape)
            rows += shape[0]
        else:
            others += math.prod(shape)
    weights = {
        "bf16": 2 * (linears + others),
        "int8": linears + 4 * rows + 2 * others,  # one float32 scale a row
        "nf4": linears // 2 + 4 * linears // 64 + 2 * others,  # one float32 scale a block of 64
    }
    stack = config.backbone
    kv = 2 * 2 * stack.num_layers * stack.num_kv_heads * stack.head_dim * stack.context
    codec = sum(
        math.prod(shape)
        for source in sources(
            replace(mimi, num_codebooks=config.num_mimi_codebooks), "kyutai"
        ).values()
        for shape in source.tensors.values()
    )
    return Memory(weights, 4 * codec, kv + session_bytes(mimi))
