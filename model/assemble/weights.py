"""The starter's directory: written once, loaded strictly.

A starter directory holds

    config.json         sizes of the language model and the codec, voices, sha256 of the other
                        files, and how far its judgement is trusted, if that was found out
    lm.safetensors      language model; linears of backbone layers and depth transformer in NF4,
                        the rest in fp16
    codec.safetensors   tokenizer and vocoder; the encoder's linears in NF4, the rest in fp16
    tokenizer.model     text pieces

How NF4 weights lie in these files is said in `model.files.modules`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.codec.mel import MelCodec, MelCodecConfig
from model.config import LMConfig
from model.errors import ConfigError, WeightsError
from model.files.modules import load_module, pack, save_tensors, to_half
from model.judgement import Judgement
from model.precision import Linears
from model.text import Tokenizer
from model.transformer.linears import convert_to_int8, use_bitsandbytes
from model.transformer.lm import LM

FORMAT = 1
CONFIG_FILE, LM_FILE, CODEC_FILE = "config.json", "lm.safetensors", "codec.safetensors"
TOKENIZER_FILE = "tokenizer.model"
_HASHED_FILES = {LM_FILE, CODEC_FILE, TOKENIZER_FILE}


@dataclass(frozen=True, slots=True)
class Starter:
    """Everything that a starter directory holds, in evaluation mode.

    Attributes:
        lm: the language model.
        codec: the tokenizer and vocoder.
        tokenizer: text pieces.
        voices: names of the voices in the order of their pieces, the default first.
        judgement: how far it is trusted.
    """

    lm: LM
    codec: MelCodec
    tokenizer: Tokenizer
    voices: tuple[str, ...]
    judgement: Judgement = field(default_factory=Judgement)


def save_starter(
    directory: Path,
    *,
    lm: LM,
    codec: MelCodec,
    tokenizer: Tokenizer,
    voices: tuple[str, ...],
    quantised: bool = True,
) -> None:
    """Write a starter directory; files of the same name are replaced.

    Args:
        directory: made if it is missing.
        lm: the language model, its codebook vectors set.
        codec: the tokenizer and vocoder it was trained with.
        tokenizer: text pieces.
        voices: names of the voices in the order of their pieces, the default first.
        quantised: store linears in NF4, as above, instead of fp16.
    """
    _check_fit(lm.config, codec.config, tokenizer, voices, str(directory))
    directory.mkdir(parents=True, exist_ok=True)
    # What a step reads again and again goes into four bits. Embeddings are read a row at a time,
    # and the text head chooses the words: both stay in fp16.
    if quantised:
        lm_tensors = pack(lm, {"layers": lm.layers, "depth": lm.depth})
        codec_tensors = pack(codec, {"encoder": codec.encoder})
    else:
        lm_tensors, codec_tensors = to_half(lm.state_dict()), to_half(codec.state_dict())
    save_tensors(directory / LM_FILE, lm_tensors)
    save_tensors(directory / CODEC_FILE, codec_tensors)
    tokenizer.save(directory / TOKENIZER_FILE)
    config = {
        "format": FORMAT,
        "lm": lm.config.to_dict(),
        "codec": codec.config.to_dict(),
        "voices": list(voices),
        "sha256": {name: _sha256(directory / name) for name in sorted(_HASHED_FILES)},
    }
    _write_config(directory, config)


def write_judgement(directory: Path, judgement: Judgement) -> None:
    """Note in a starter directory how far its judgement is trusted.

    Raises:
        WeightsError: it is no starter directory.
    """
    _read_config(directory)
    config = json.loads((directory / CONFIG_FILE).read_text())
    _write_config(directory, config | {"judgement": judgement.to_dict()})


def _write_config(directory: Path, config: Mapping[str, Any]) -> None:
    (directory / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")


def load_starter(directory: Path, linears: Linears = "dense") -> Starter:
    """Read a starter directory.

    Args:
        directory: written by `save_starter`.
        linears: "dense" dequantises NF4 weights once, to fp32; "nf4" keeps them packed, and so
            does "bitsandbytes", whose kernels multiply by them then; "int8" also converts the hot
            linears of the language model to int8, the fastest on a CPU.

    Raises:
        WeightsError: naming the file, and the tensor if there is one, with got and expected.
        ConfigError: bitsandbytes is asked for and not installed.
        TextError: if the text pieces are not a tokenizer.
    """
    config = _read_config(directory)
    # Read once to be compared and once to be loaded. A download that broke off would otherwise be
    # found as a wrong tensor, somewhere, or not at all.
    _check_hashes(directory, config.sha256)
    tokenizer = Tokenizer.load(directory / TOKENIZER_FILE)
    _check_fit(config.lm, config.codec, tokenizer, config.voices, str(directory))
    codec = MelCodec(config.codec).eval()
    load_module(directory / CODEC_FILE, codec)
    lm = _load_lm(directory, config.lm, linears)
    return Starter(lm, codec, tokenizer, config.voices, config.judgement)


def check_starter(directory: Path) -> None:
    """Compare the files of a starter directory with their hashes, and load none.

    Raises:
        WeightsError: naming the file.
    """
    _check_hashes(directory, _read_config(directory).sha256)


def load_lm(directory: Path, linears: Linears = "dense") -> LM:
    """Read only the language model of a starter directory; arguments as `load_starter`."""
    return _load_lm(directory, _read_config(directory).lm, linears)


def _load_lm(directory: Path, config: LMConfig, linears: Linears) -> LM:
    lm = LM(config).eval()
    is_packed = linears in ("nf4", "bitsandbytes")
    load_module(directory / LM_FILE, lm, is_packed=is_packed)
    if linears == "bitsandbytes":
        use_bitsandbytes(lm)
    if linears == "int8":
        convert_to_int8(lm)
    return lm


@dataclass(frozen=True, slots=True)
class _StarterConfig:
    """Contents of `config.json`."""

    lm: LMConfig
    codec: MelCodecConfig
    voices: tuple[str, ...]
    sha256: Mapping[str, str]
    judgement: Judgement


def _read_config(directory: Path) -> _StarterConfig:
    path = directory / CONFIG_FILE
    try:
        values: Any = json.loads(path.read_text())
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise WeightsError(f"{path}: not JSON ({error})") from error
    expected = {"format", "lm", "codec", "voices", "sha256"}
    # What was found out about weights may be missing: they were exported before.
    if not isinstance(values, dict) or set(values) - {"judgement"} != expected:
        got = sorted(values) if isinstance(values, dict) else type(values).__name__
        raise WeightsError(f"{path}: expected the keys {sorted(expected)}, got {got}")
    if values["format"] != FORMAT:
        raise WeightsError(f"{path}: expected format {FORMAT}, got {values['format']!r}")
    voices, sha256 = values["voices"], values["sha256"]
    if not (isinstance(voices, list) and all(isinstance(voice, str) for voice in voices)):
        raise WeightsError(f"{path}: voices: expected a list of names, got {voices!r}")
    if not isinstance(sha256, dict) or set(sha256) != _HASHED_FILES:
        raise WeightsError(f"{path}: sha256: expected one for each of {sorted(_HASHED_FILES)}")
    try:
        lm = LMConfig.from_dict(values["lm"])
        codec = MelCodecConfig.from_dict(values["codec"])
        judgement = Judgement.from_dict(values.get("judgement", {}))
        _check_judgement(judgement, lm)
    except ConfigError as error:
        raise WeightsError(f"{path}: {error}") from error
    return _StarterConfig(lm, codec, tuple(voices), sha256, judgement)


def _check_judgement(judgement: Judgement, lm: LMConfig) -> None:
    if judgement.ends is not None and not lm.has_end_head:
        raise ConfigError("judgement.ends: the model has no head for ends of turns")


def _check_fit(
    lm: LMConfig,
    codec: MelCodecConfig,
    tokenizer: Tokenizer,
    voices: tuple[str, ...],
    source: str,
) -> None:
    """Refuse parts that were not made for each other."""
    codes = (lm.num_codebooks, lm.codebook_size)
    # A codec of another run has codes of the same numbers and of another meaning; that only the
    # sha256 can tell. Sizes that differ would fail later with an error about tensors.
    if codes != (codec.num_codebooks, codec.codebook_size):
        raise WeightsError(
            f"{source}: the language model has {codes[0]} codebooks of {codes[1]}, "
            f"the codec {codec.num_codebooks} of {codec.codebook_size}"
        )
    if len(tokenizer) > lm.text_vocab:
        raise WeightsError(
            f"{source}: the tokenizer has {len(tokenizer)} pieces, the model {lm.text_vocab}"
        )
    if lm.picture_size and not tokenizer.is_taught_prompts:
        raise WeightsError(f"{source}: the model sees, and the tokenizer has no piece for that")
    most = tokenizer.num_voices
    if not 1 <= len(voices) <= most or len(set(voices)) != len(voices):
        raise WeightsError(f"{source}: expected 1 to {most} different voices, got {voices}")


def _check_hashes(directory: Path, sha256: Mapping[str, str]) -> None:
    for name, digest in sha256.items():
        if _sha256(directory / name) != digest:
            raise WeightsError(f"{directory / name}: damaged, its sha256 is not {digest}")


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
