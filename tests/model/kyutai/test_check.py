"""A directory is understood from its headers: what it is, what is wrong, what it costs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.codec.mimi import MimiConfig
from model.codec.mimi.names import sources
from model.errors import WeightsError
from model.kyutai.check import Checkpoint, check_directory, sound_directory
from model.kyutai.config import KyutaiConfig
from model.kyutai.tensors import expected_tensors
from tests.fakes.kyutai import PERSONAPLEX, write_zeros

LM, MIMI, PIECES = "model.safetensors", "tokenizer-1.safetensors", "tokenizer_spm.model"


@pytest.fixture
def directory(make_directory: Callable[..., Path]) -> Path:
    """A sound directory with a small Moshi."""
    return make_directory()


@pytest.fixture
def check(directory: Path) -> Callable[[], Checkpoint]:
    """Check that directory."""
    return lambda: check_directory(directory)


def test_a_sound_directory(check: Callable[[], Checkpoint]) -> None:
    """All files are found by what they are usually called."""
    found = check()
    assert found.problems == ()
    assert {what: path.name for what, path in found.files.items()} == {
        "lm": LM, "mimi": MIMI, "tokenizer": PIECES,
    }  # fmt: skip
    assert found.config is not None
    assert found.config.kind == "moshi"


def test_files_that_the_configuration_names(
    directory: Path, check: Callable[[], Checkpoint]
) -> None:
    """Its names come before the usual ones."""
    values = json.loads((directory / "config.json").read_text())
    values |= {"moshi_name": "other.safetensors"}
    (directory / "config.json").write_text(json.dumps(values))
    assert "expected one file other.safetensors, got none" in check().problems[0]
    (directory / LM).rename(directory / "other.safetensors")
    assert check().problems == ()


def test_everything_that_is_wrong_is_said_at_once(
    directory: Path, check: Callable[[], Checkpoint]
) -> None:
    """A tensor of another shape, a codec cut short, no text pieces."""
    tensors = load_file(directory / LM)
    save_file(tensors | {"out_norm.alpha": torch.zeros(3)}, directory / LM)
    (directory / MIMI).write_bytes((directory / MIMI).read_bytes()[:-100])
    (directory / PIECES).unlink()
    problems = check().problems
    assert len(problems) == 3
    assert "tokenizer*.model, got none" in problems[0]
    assert "out_norm.alpha: expected [1, 1, 32]" in problems[1]
    assert "cut short: upsample.convtr.convtr.convtr.weight" in problems[2]


def test_a_model_of_another_kind(directory: Path, check: Callable[[], Checkpoint]) -> None:
    """A tensor that is missing and one that is left over are named."""
    tensors = load_file(directory / LM)
    save_file({**tensors, "lora.weight": torch.zeros(1)}, directory / LM)
    assert "lora.weight: not part of this model" in check().problems[0]
    del tensors["linears.2.weight"]
    save_file(tensors, directory / LM)
    assert "linears.2.weight: missing, expected [20, 16]" in check().problems[0]


def test_text_pieces_that_are_none_or_too_many(
    directory: Path, check: Callable[[], Checkpoint]
) -> None:
    """The file is tried, and its pieces are counted."""
    values = json.loads((directory / "config.json").read_text()) | {"text_card": 20}
    (directory / "config.json").write_text(json.dumps(values))
    assert "expected at most 20 text pieces, got 2" in check().problems[-1]
    (directory / PIECES).write_bytes(b"not one")
    assert "not a file of text pieces" in check().problems[-1]


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    """Is a problem like any other."""
    assert check_directory(tmp_path / "no").problems == (f"{tmp_path / 'no'}: not a directory",)
    (tmp_path / "config.json").write_text("{")
    assert "config.json: cannot be read" in check_directory(tmp_path).problems[0]


def test_an_empty_directory_stands_for_moshi(tmp_path: Path) -> None:
    """It says what it lacks and would cost."""
    found = check_directory(tmp_path)
    assert len(found.problems) == 3
    assert found.num_parameters == 7_687_729_152
    assert found.memory is not None
    # Norms that the depth weight sets share are held once for each.
    assert found.memory.weights["bf16"] == pytest.approx(2 * found.num_parameters, rel=1e-4)


def test_a_directory_with_problems(make_directory: Callable[..., Path]) -> None:
    """Is refused with all of them."""
    directory = make_directory()
    (directory / "tokenizer_spm.model").unlink()
    (directory / "model.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"(?s)tokenizer.*got none.*not a safetensors file"):
        sound_directory(directory)


def test_a_checkpoint_larger_than_memory(tmp_path: Path, pieces: bytes) -> None:
    """Only headers are read: PersonaPlex in its full size takes no longer than a small model."""
    config = KyutaiConfig.from_dict(PERSONAPLEX)
    (tmp_path / "config.json").write_text(json.dumps(PERSONAPLEX))
    write_zeros(tmp_path / LM, expected_tensors(config), "BF16", 2)
    assert (tmp_path / LM).stat().st_size > 16_742_000_000
    codec = {
        name: shape
        for source in sources(MimiConfig(), "kyutai").values()
        for name, shape in source.tensors.items()
    }
    write_zeros(tmp_path / MIMI, codec, "F32", 4)
    (tmp_path / PIECES).write_bytes(pieces)
    found = check_directory(tmp_path)
    assert found.problems == ()
    assert (found.layout, found.num_parameters) == ("kyutai", 8_371_408_896)
