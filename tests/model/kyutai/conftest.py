"""Directories with small checkpoints, made of the golden cases."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import sentencepiece

LM, MIMI, PIECES = "model.safetensors", "tokenizer-1.safetensors", "tokenizer_spm.model"

MakeDirectory = Callable[..., Path]


@pytest.fixture(scope="session")
def pieces() -> bytes:
    """Return a file of 28 text pieces."""
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the quick brown fox jumps over the lazy dog"] * 3),
        model_writer=file,
        vocab_size=28,
        model_type="char",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return file.getvalue()


@pytest.fixture
def make_directory(golden: Path, pieces: bytes, tmp_path: Path) -> MakeDirectory:
    """Return what makes a sound directory with the model of a golden case and a small codec."""

    def make(case: str = "moshi", **config: object) -> Path:
        directory = tmp_path / case
        directory.mkdir()
        values = json.loads((golden / f"{case}.json").read_text())
        values |= {"mimi_config_name": "mimi.json", **config}
        (directory / "config.json").write_text(json.dumps(values))
        shutil.copy(golden / f"{case}.weights.safetensors", directory / LM)
        shutil.copy(golden / "mimi.weights.safetensors", directory / MIMI)
        shutil.copy(golden / "mimi.json", directory / "mimi.json")
        (directory / PIECES).write_bytes(pieces)
        return directory

    return make
