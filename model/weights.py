"""Weight files: written once, loaded strictly.

A starter directory holds

    config.json         sizes of the language model and the codec, voices, sha256 of the other files
    lm.safetensors      language model; linears of backbone layers and depth transformer in NF4,
                        the rest in fp16
    codec.safetensors   tokenizer and vocoder; the encoder's linears in NF4, the rest in fp16
    tokenizer.model     text pieces

An NF4 weight `W` is stored as `W.nf4` (uint8, two levels a byte) and `W.absmax` (fp32, one a block
of 64), bit for bit what bitsandbytes stores. Anything that is missing, left over, of another shape
or type, or damaged is refused by name; nothing is guessed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from kernels.int8 import Int8Linear
from kernels.nf4 import NF4Linear, dequantize_nf4, quantize_nf4
from model.codec.mel import MelCodec, MelCodecConfig
from model.config import LMConfig
from model.errors import ConfigError, WeightsError
from model.lm import LM
from model.text import NUM_VOICES, Tokenizer

FORMAT = 1
CONFIG_FILE, LM_FILE, CODEC_FILE = "config.json", "lm.safetensors", "codec.safetensors"
TOKENIZER_FILE = "tokenizer.model"
_HASHED_FILES = {LM_FILE, CODEC_FILE, TOKENIZER_FILE}
_FLOATS = (torch.float16, torch.bfloat16, torch.float32)

Linears = Literal["dense", "nf4", "int8"]


@dataclass(frozen=True, slots=True)
class Starter:
    """Everything that a starter directory holds, in evaluation mode.

    Attributes:
        lm: the language model.
        codec: the tokenizer and vocoder.
        tokenizer: text pieces.
        voices: names of the voices in the order of their pieces, the default first.
    """

    lm: LM
    codec: MelCodec
    tokenizer: Tokenizer
    voices: tuple[str, ...]


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
    if quantised:
        lm_tensors = _pack(lm, {"layers": lm.layers, "depth": lm.depth})
        codec_tensors = _pack(codec, {"encoder": codec.encoder})
    else:
        lm_tensors, codec_tensors = _to_half(lm.state_dict()), _to_half(codec.state_dict())
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
    (directory / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")


def load_starter(directory: Path, linears: Linears = "dense") -> Starter:
    """Read a starter directory.

    Args:
        directory: written by `save_starter`.
        linears: "dense" dequantises NF4 weights once, to fp32; "nf4" keeps them packed; "int8"
            also converts the hot linears of the language model to int8, the fastest on a CPU.

    Raises:
        WeightsError: naming the file, and the tensor if there is one, with got and expected.
        TextError: if the text pieces are not a tokenizer.
    """
    config = _read_config(directory)
    for name, digest in config.sha256.items():
        if _sha256(directory / name) != digest:
            raise WeightsError(f"{directory / name}: damaged, its sha256 is not {digest}")
    tokenizer = Tokenizer.load(directory / TOKENIZER_FILE)
    _check_fit(config.lm, config.codec, tokenizer, config.voices, str(directory))
    codec = MelCodec(config.codec).eval()
    load_module(directory / CODEC_FILE, codec)
    return Starter(_load_lm(directory, config.lm, linears), codec, tokenizer, config.voices)


def load_lm(directory: Path, linears: Linears = "dense") -> LM:
    """Read only the language model of a starter directory; arguments as `load_starter`."""
    return _load_lm(directory, _read_config(directory).lm, linears)


def _load_lm(directory: Path, config: LMConfig, linears: Linears) -> LM:
    lm = LM(config).eval()
    load_module(directory / LM_FILE, lm, is_packed=linears == "nf4")
    if linears == "int8":
        convert_to_int8(lm)
    return lm


def convert_to_int8(lm: LM) -> None:
    """Replace the linears that a step spends its time in by int8 ones, for few rows on a CPU.

    These are the linears of the transformer layers and the depth transformer's projection and
    heads. The text head stays as it is: words are chosen by it.

    Raises:
        ConfigError: if the model has a width that the int8 kernel cannot do.
    """
    for name, linear in hot_linears(lm).items():
        lm.set_submodule(name, to_int8(name, linear))


def hot_linears(lm: LM) -> dict[str, nn.Linear]:
    """Return the linears that a step spends its time in, by name: these may be quantised."""
    return {
        name: linear
        for name, linear in lm.named_modules()
        if isinstance(linear, nn.Linear)
        and ("layers." in name or name.startswith(("depth.in_proj", "depth.heads.")))
    }


def to_int8(name: str, linear: nn.Linear) -> Int8Linear:
    """Return an int8 linear of the same weight, about; arguments and errors as above."""
    try:
        return Int8Linear.from_linear(linear, backend="aten")
    except ValueError as error:
        raise ConfigError(f"{name}: cannot be int8 ({error})") from error


def load_module(path: Path, module: nn.Module, *, is_packed: bool = False) -> None:
    """Fill a module from a file that holds exactly its tensors.

    A linear's weight may be stored in NF4. Other floating point tensors may be of any floating
    type and are converted to the module's.

    Args:
        path: safetensors file.
        module: filled in place.
        is_packed: keep NF4 weights packed, by replacing their linears, instead of dequantising.

    Raises:
        WeightsError: naming the file and the tensor, with got and expected.
    """
    tensors = read_tensors(path)
    for name, linear in list(module.named_modules()):
        if isinstance(linear, nn.Linear) and f"{name}.weight.nf4" in tensors:
            _unpack(path, tensors, module, name, is_packed=is_packed)
    expected = module.state_dict()
    missing = sorted(expected.keys() - tensors.keys())
    left_over = sorted(tensors.keys() - expected.keys())
    for names, what in ((missing, "missing"), (left_over, "not part of this model")):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise WeightsError(f"{path}: {', '.join(names[:3])}{more}: {what}")
    for name, target in expected.items():
        _check_tensor(path, name, tensors[name], target)
        target.copy_(tensors[name])


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file of `tensors`; the same tensors give the same bytes."""
    contiguous = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    safetensors.torch.save_file(contiguous, path, metadata={"format": "pt"})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        WeightsError: if it is missing, truncated or something else.
    """
    try:
        return safetensors.torch.load_file(path)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from error
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{path}: not a whole safetensors file ({error})") from error


def _pack(module: nn.Module, parts: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Return the tensors of `module`, the linears within its `parts` (by name) in NF4."""
    tensors = _to_half(module.state_dict())
    for prefix, part in parts.items():
        for name, linear in part.named_modules(prefix=prefix):
            if isinstance(linear, nn.Linear):
                del tensors[f"{name}.weight"]
                packed, absmax = quantize_nf4(linear.weight)
                tensors[f"{name}.weight.nf4"] = packed
                tensors[f"{name}.weight.absmax"] = absmax
    return tensors


def _unpack(
    path: Path, tensors: dict[str, Tensor], module: nn.Module, name: str, *, is_packed: bool
) -> None:
    """Turn the NF4 tensors of one linear into what the module needs."""
    linear = module.get_submodule(name)
    assert isinstance(linear, nn.Linear)
    packed = tensors.pop(f"{name}.weight.nf4")
    absmax = tensors.pop(f"{name}.weight.absmax", None)
    if absmax is None:
        raise WeightsError(f"{path}: {name}.weight.absmax: missing")
    shape = (linear.out_features, linear.in_features)
    quantised = NF4Linear(linear.in_features, linear.out_features, backend="reference")
    _check_tensor(path, f"{name}.weight.nf4", packed, quantised.packed)
    _check_tensor(path, f"{name}.weight.absmax", absmax, quantised.absmax)
    if not is_packed:
        tensors[f"{name}.weight"] = dequantize_nf4(packed, absmax, shape)
        return
    module.set_submodule(name, quantised)
    tensors[f"{name}.packed"], tensors[f"{name}.absmax"] = packed, absmax


def _check_tensor(path: Path, name: str, got: Tensor, expected: Tensor) -> None:
    same_type = got.dtype == expected.dtype or (got.dtype in _FLOATS and expected.dtype in _FLOATS)
    if got.shape != expected.shape or not same_type:
        raise WeightsError(f"{path}: {name}: expected {_describe(expected)}, got {_describe(got)}")


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _to_half(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }


@dataclass(frozen=True, slots=True)
class _StarterConfig:
    """Contents of `config.json`."""

    lm: LMConfig
    codec: MelCodecConfig
    voices: tuple[str, ...]
    sha256: Mapping[str, str]


def _read_config(directory: Path) -> _StarterConfig:
    path = directory / CONFIG_FILE
    try:
        values: Any = json.loads(path.read_text())
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise WeightsError(f"{path}: not JSON ({error})") from error
    expected = {"format", "lm", "codec", "voices", "sha256"}
    if not isinstance(values, dict) or set(values) != expected:
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
    except ConfigError as error:
        raise WeightsError(f"{path}: {error}") from error
    return _StarterConfig(lm, codec, tuple(voices), sha256)


def _check_fit(
    lm: LMConfig,
    codec: MelCodecConfig,
    tokenizer: Tokenizer,
    voices: tuple[str, ...],
    source: str,
) -> None:
    """Refuse parts that were not made for each other."""
    codes = (lm.num_codebooks, lm.codebook_size)
    if codes != (codec.num_codebooks, codec.codebook_size):
        raise WeightsError(
            f"{source}: the language model has {codes[0]} codebooks of {codes[1]}, "
            f"the codec {codec.num_codebooks} of {codec.codebook_size}"
        )
    if len(tokenizer) > lm.text_vocab:
        raise WeightsError(
            f"{source}: the tokenizer has {len(tokenizer)} pieces, the model {lm.text_vocab}"
        )
    if not 1 <= len(voices) <= NUM_VOICES or len(set(voices)) != len(voices):
        raise WeightsError(f"{source}: expected 1 to {NUM_VOICES} different voices, got {voices}")


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
