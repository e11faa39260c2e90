"""Say what a directory with a published checkpoint holds, what is wrong with it, and what it costs.

Only headers are read, so a checkpoint of many gigabytes is checked in a moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from model.codec.mimi import MimiConfig, check_mimi
from model.errors import ParleyError, TextError, WeightsError
from model.family import ServedKind
from model.files.published import TensorFile, read_json
from model.kyutai import transformers
from model.kyutai.config import KyutaiConfig
from model.kyutai.layouts import PublishedWeights
from model.kyutai.memory import Memory, memory_of
from model.kyutai.tensors import num_parameters
from model.kyutai.voices import VOICES_ARCHIVE, VOICES_FOLDER, check_voice, voice_files
from model.kyutai.weights import FORMAT_KEY, open_weights
from model.pieces import TextPieces

CONFIG_FILE, QUANTISED_FILE = "config.json", "model.nf4.safetensors"

# Of a folder with config.json, model.safetensors, tokenizer-e351c8d8.safetensors and
# tokenizer_spm_32k_3.model, the patterns find the language model, the codec and the text pieces. A
# file that config.json names goes before all of them.
# Where a file is if config.json does not name it: the first pattern that matches a file.
_PATTERNS: Mapping[str, tuple[str, ...]] = {
    "lm": ("model.safetensors.index.json", "model.safetensors", "model.q8.safetensors"),
    "mimi": ("tokenizer-*.safetensors", "mimi*.safetensors"),
    "tokenizer": ("tokenizer*.model",),
}

Layout = Literal["kyutai", "int8", "transformers", "nf4"]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What was found in a directory.

    Attributes:
        config: of the language model; None if it could not be read.
        mimi: sizes of the codec.
        mimi_prefix: of its names, where it is in the language model's file.
        files: that the checkpoint consists of, as far as they are there: "lm", "mimi", "tokenizer".
        voices: files of PersonaPlex's voices by name.
        layout: of the language model's file; None if it has none that is known.
        problems: what is missing or wrong, a sentence each; empty if it can be served.
        num_parameters: of the language model as it was published.
        memory: that it needs; None without a configuration.
    """

    config: KyutaiConfig | None
    mimi: MimiConfig = field(default_factory=MimiConfig)
    mimi_prefix: str = ""
    files: Mapping[str, Path] = field(default_factory=dict)
    voices: Mapping[str, Path] = field(default_factory=dict)
    layout: Layout | None = None
    problems: tuple[str, ...] = ()
    num_parameters: int = 0
    memory: Memory | None = None


def check_directory(directory: Path, mimi: MimiConfig | None = None) -> Checkpoint:
    """Look at a checkpoint, in whatever layout.

    Args:
        directory: with the language model, Mimi, the text pieces and, except for Moshi,
            config.json.
        mimi: sizes of the codec; None means those that config.json leads to, or the published ones.
    """
    try:
        found = _read_config(directory)
    except ParleyError as error:
        return Checkpoint(None, problems=(str(error),))
    config = found.config
    assert config is not None
    found = replace(found, mimi=mimi or found.mimi)
    files: dict[str, Path] = {}
    problems: list[str] = []
    # Everything that is wrong is collected, so that a user who mends a folder does not learn of one
    # thing at a time.
    for what in _PATTERNS:
        if what == "mimi" and found.mimi_prefix:
            if "lm" in files:
                files[what] = files["lm"]
            continue
        try:
            files[what] = _find(directory, what, config.files.get(what))
        except WeightsError as error:
            problems.append(str(error))
    found = replace(found, files=files, voices=voice_files(directory))
    layout, file_problems = _check_files(found)
    problems += [*file_problems, *_other_problems(directory, found)]
    return replace(
        found,
        layout=layout,
        problems=tuple(problems),
        num_parameters=num_parameters(config),
        memory=memory_of(config, found.mimi),
    )


def sound_directory(directory: Path, mimi: MimiConfig | None = None) -> Checkpoint:
    """Look at a checkpoint that is going to be used; arguments as `check_directory`.

    Raises:
        WeightsError: if there are problems, with all of them.
    """
    found = check_directory(directory, mimi)
    if found.problems:
        raise WeightsError("\n".join(found.problems))
    return found


def _read_config(directory: Path) -> Checkpoint:
    """Return what config.json leads to: the sizes, and where the codec is."""
    path = directory / CONFIG_FILE
    if not directory.is_dir():
        raise WeightsError(f"{directory}: not a directory")
    # A starter's config.json has keys of its own. Whoever points here with one is told what serves
    # it, and not that a key is unknown.
    values: dict[str, Any] = read_json(path) if path.exists() else {}
    if values.keys() >= {"format", "lm", "codec"}:
        raise WeightsError(
            f"{directory}: a starter, which configs/starter.yaml serves; no published checkpoint"
        )
    try:
        if transformers.is_transformers(values):
            config, mimi = transformers.read_config(values)
            # A quantised one has its codec apart.
            prefix = "" if (directory / QUANTISED_FILE).exists() else transformers.MIMI_PREFIX
            return Checkpoint(config, mimi, prefix)
        config = KyutaiConfig.from_dict(values)
        if name := config.files.get("mimi_config"):
            return Checkpoint(config, MimiConfig.from_kyutai(read_json(directory / name)))
    except ParleyError as error:
        raise WeightsError(f"{path}: {error}") from error
    return Checkpoint(config)


def _find(directory: Path, what: str, given: str | None) -> Path:
    if what == "lm" and (directory / QUANTISED_FILE).exists():
        return directory / QUANTISED_FILE
    names = (given,) if given else _PATTERNS[what]
    found: list[Path] = []
    if given:
        found = [path for path in [directory / given] if path.exists()]
    else:
        # The first pattern that finds anything decides: an index before a single file, since the
        # parts of a split model lie beside it and match nothing else.
        for name in names:
            found = found or sorted(directory.glob(name))
    if len(found) != 1:
        count = ", ".join(path.name for path in found) or "none"
        raise WeightsError(f"{directory}: expected one file {' or '.join(names)}, got {count}")
    return found[0]


def _check_files(found: Checkpoint) -> tuple[Layout | None, list[str]]:
    """Go through what is wrong within the files that are there."""
    problems: list[str] = []
    layout: Layout | None = None
    checks: Mapping[str, Callable[[Checkpoint, Path], Layout | None]] = {
        "lm": _check_lm, "mimi": _check_codec, "tokenizer": _check_pieces,
    }  # fmt: skip
    for what, path in found.files.items():
        try:
            # Only the language model has a layout; the checks of the other files return none, and
            # leave what was found.
            layout = checks[what](found, path) or layout
        except (WeightsError, TextError) as error:
            problems.append(str(error))
    for path in found.voices.values():
        try:
            assert found.config is not None
            check_voice(path, found.config)
        except WeightsError as error:
            problems.append(str(error))
    return layout, problems


def _check_lm(found: Checkpoint, path: Path) -> Layout:
    assert found.config is not None
    file = TensorFile(path)
    open_weights(file, found.config)
    if FORMAT_KEY in file.metadata:
        return "nf4"
    return PublishedWeights(file, found.config).layout


def _check_codec(found: Checkpoint, path: Path) -> None:
    check_mimi(TensorFile(path), found.mimi, found.mimi_prefix)


def _check_pieces(found: Checkpoint, path: Path) -> None:
    assert found.config is not None
    most, pieces = found.config.text_card, len(TextPieces.load(path))
    # A file with fewer pieces than the model has rows is usual: rows to spare are never put out.
    # With more, a piece would have no row.
    if pieces > most:
        raise TextError(f"{path}: expected at most {most} text pieces, got {pieces}")


def _other_problems(directory: Path, found: Checkpoint) -> Iterator[str]:
    config = found.config
    assert config is not None
    if config.num_mimi_codebooks > found.mimi.num_codebooks:
        yield (
            f"the model needs {config.num_mimi_codebooks} codebooks, "
            f"the codec has {found.mimi.num_codebooks}"
        )
    if config.kind not in get_args(ServedKind):
        yield f"a model of the kind {config.kind!r} can be loaded, but nothing here serves one"
    if not found.voices and (directory / VOICES_ARCHIVE).exists():
        yield (
            f"{directory / VOICES_ARCHIVE}: not converted to {VOICES_FOLDER}/; "
            f"parley check --convert-voices does it"
        )
