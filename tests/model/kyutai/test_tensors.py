"""The tables of names and shapes are those of the published files, down to their sizes in bytes."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from model.files.published import TensorFile
from model.kyutai.config import KyutaiConfig
from model.kyutai.tensors import expected_tensors, num_parameters, unused_tensors
from tests.fakes.kyutai import HIBIKI_2B, PERSONAPLEX

STT_2_6B: dict[str, Any] = {
    "model_type": "stt", "dim": 2048, "num_heads": 32, "num_layers": 48, "hidden_scale": 4.125,
    "context": 375, "max_period": 100_000, "text_card": 4000, "card": 2048, "n_q": 32, "dep_q": 0,
    "delays": [0] * 33,
}  # fmt: skip
STT_1B = STT_2_6B | {"num_heads": 16, "num_layers": 16, "context": 750, "text_card": 8000}
MOST_HEADER_BYTES = 120 * 500  # of a name with its type, shape and place, for 500 tensors


@pytest.mark.parametrize(
    ("values", "num_tensors", "file_bytes"),
    [
        ({}, 355, 15_375_500_136),
        (PERSONAPLEX, 475, 16_742_874_000),
        (HIBIKI_2B, 327, 5_574_762_720),
        (STT_2_6B, 323, 5_234_275_128),
        (STT_1B, 131, 1_978_423_520),
    ],
    ids=["moshi", "personaplex", "hibiki-2b", "stt-2.6b", "stt-1b"],
)
def test_published_files_are_as_large_as_their_tensors(
    values: dict[str, Any], num_tensors: int, file_bytes: int
) -> None:
    """In bf16, and a header."""
    config = KyutaiConfig.from_dict(values)
    assert len(expected_tensors(config)) == num_tensors
    header_bytes = file_bytes - 2 * num_parameters(config)
    assert 0 < header_bytes < MOST_HEADER_BYTES


@pytest.mark.golden
@pytest.mark.parametrize("case", ["moshi", "personaplex", "hibiki", "hibiki_zero", "stt", "tts"])
def test_golden_files_hold_exactly_these(golden: Path, case: str) -> None:
    """Every name and shape, and nothing else but what is known to be unused."""
    config = KyutaiConfig.from_dict(json.loads((golden / f"{case}.json").read_text()))
    shapes = TensorFile(golden / f"{case}.weights.safetensors").shapes
    used = {n: shape for n, shape in shapes.items() if n not in unused_tensors(config)}
    assert used == expected_tensors(config)
    assert num_parameters(config) == sum(math.prod(shape) for shape in used.values())
