"""What docs/models.md says is what the code works out: its tables, names and commands."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from model.codec.mimi import MimiConfig
from model.kyutai.catalogue import Entry, catalogue
from model.kyutai.cli import COMMANDS, gigabytes
from model.kyutai.config import KyutaiConfig
from model.kyutai.memory import KV_BITS, SESSIONS, WEIGHTS, memory_of
from model.kyutai.tensors import expected_tensors
from tests.fakes.kyutai import HIBIKI_2B, PERSONAPLEX

TEXT = (Path(__file__).parent.parent / "docs" / "models.md").read_text()

MODELS: dict[str, dict[str, Any]] = {
    "Moshi 7B": {}, "PersonaPlex 7B": PERSONAPLEX, "Hibiki 2B": HIBIKI_2B,
}  # fmt: skip
# Looked up by row: not int8 where linears are.
TABLES = ("emb.", "text_emb.", "depformer_emb.", "depformer_text_emb.")

MIMI_BYTES = 384_644_900


@pytest.mark.parametrize("name", MODELS)
def test_memory_is_what_check_says(name: str) -> None:
    """Weights, and totals for each number of sessions with keys and values in 16 and 8 bits."""
    config = KyutaiConfig.from_dict(MODELS[name])
    memory = memory_of(config, MimiConfig())
    minutes = f"{memory.context:,} steps ({memory.context * 0.08 / 60:.0f} min)"
    for weights in WEIGHTS:
        totals = (
            " / ".join(gigabytes(memory.total(weights, n, kv_bits=bits)) for bits in KV_BITS)
            for n in SESSIONS
        )
        cells = [f"{name}, {minutes}", weights, gigabytes(memory.weights[weights]), *totals]
        row = f"| {' | '.join(cells)} |"
        assert row in TEXT.splitlines()
    assert TEXT.count(f"| {name}, {minutes}") == len(WEIGHTS)


def num_bytes(known: Entry) -> int | None:
    """Return what a checkpoint's large files have together; None if it is not known.

    Where no size is published it is that of the tensors, which are Moshi's.
    """
    total = 0
    for source in known.sources:
        for file, expected in source.files.items():
            if expected.num_bytes:
                total += expected.num_bytes
            elif file.startswith("model") and file.endswith(".safetensors"):
                total += moshi_bytes(is_int8="q8" in file)
            elif file.endswith(".safetensors"):
                return None
    if known.name.endswith("-transformers"):
        total += MIMI_BYTES
    return total


def moshi_bytes(*, is_int8: bool) -> int:
    """Return what Moshi's tensors have in bf16, or with linears in int8 and a float32 a row."""
    total = 0
    for name, shape in expected_tensors(KyutaiConfig.from_dict({})).items():
        if is_int8 and len(shape) == 2 and not name.startswith(TABLES):
            total += shape[0] * (shape[1] + 4)
        else:
            total += 2 * math.prod(shape)
    return total


def test_every_checkpoint_is_in_the_table() -> None:
    """With its licence and size."""
    for known in catalogue().values():
        size = num_bytes(known)
        download = "not known" if size is None else f"{gigabytes(size)} GB"
        row = f"| `{known.name}` | {known.about} | {known.licence} | {download} |"
        assert row in TEXT.splitlines()
    assert len(re.findall(r"^\| `[\w-]+` \| .* \| (CC|NVIDIA)", TEXT, re.MULTILINE)) == len(
        catalogue()
    )


def test_commands_and_names_are_real() -> None:
    """Every command in the text is one; every checkpoint that is pulled is known."""
    commands = set(re.findall(r"`(?:\.venv/bin/)?parley ([a-z]+)", TEXT))
    assert commands - {"serve"} <= set(COMMANDS)
    assert set(re.findall(r"parley pull ([a-z][\w-]*)", TEXT)) <= set(catalogue())
