"""A published file is measured against its own header before anything of it is used."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from model.errors import WeightsError
from model.published import TensorFile


def test_tensors_are_read_as_float32(tmp_path: Path) -> None:
    """Whatever floating point type they are stored in."""
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.tensor([[1.5, -2.0]], dtype=torch.bfloat16)}, path)
    file = TensorFile(path)
    assert (file.shapes, file.dtypes) == ({"w": (1, 2)}, {"w": "BF16"})
    assert torch.equal(file.read("w", (1, 2)), torch.tensor([[1.5, -2.0]]))


def test_the_first_tensor_that_is_cut_short_is_named(tmp_path: Path) -> None:
    """With where it should end, and where the file does."""
    data = save({"a": torch.zeros(4), "b": torch.zeros(2, 2), "c": torch.zeros(4)})
    path = tmp_path / "short.safetensors"
    path.write_bytes(data[:-20])
    with pytest.raises(
        WeightsError, match=r"cut short: b \[2, 2\] in F32 .* ends at byte"
    ) as error:
        TensorFile(path)
    assert str(len(data)) in str(error.value)


HEADER = {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}


def with_header(text: str, data: bytes = b"") -> bytes:
    """Return a file with this header."""
    return len(text).to_bytes(8, "little") + text.encode() + data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04 something else entirely",
        with_header(json.dumps(HEADER))[:20],
        with_header("[1, 2]"),
        with_header('{"w": {"dtype": "F32"}}'),
        with_header('{"w": 3}'),
        with_header('{"w": {"dtype": "F32", "shape": 3, "data_offsets": [0, 4]}}', bytes(4)),
        with_header(json.dumps(HEADER), bytes(8)),
    ],
    ids=["empty", "zip", "header cut", "list", "no offsets", "number", "shape", "too long"],
)
def test_what_is_not_safetensors_is_refused(tmp_path: Path, data: bytes) -> None:
    """By the name of the file, whatever it holds."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"x\.safetensors: not a"):
        TensorFile(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """As the system says it."""
    with pytest.raises(WeightsError, match=r"none\.safetensors: cannot be read \(No such file"):
        TensorFile(tmp_path / "none.safetensors")
