"""A published file is measured against its own header before anything of it is used."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from model.errors import WeightsError
from model.files.published import TensorFile


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
        with_header("[" * 100_000),
        with_header(json.dumps(HEADER).replace("[1]", '["1"]'), bytes(4)),
        with_header(json.dumps(HEADER).replace("[0, 4]", "[-4, 0]"), bytes(4)),
        with_header(json.dumps(HEADER).replace("F32", "F33"), bytes(4)),
        with_header(json.dumps(HEADER).replace("[1]", "[2]"), bytes(4)),
        len(b"\xff\xff").to_bytes(8, "little") + b"\xff\xff",
    ],
    ids=[
        "empty",
        "zip",
        "header cut",
        "list",
        "no offsets",
        "number",
        "shape",
        "too long",
        "deep",
        "text for a number",
        "before the data",
        "type",
        "other size",
        "no text",
    ],
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


SPLIT = {"a.safetensors": ["x", "y"], "b.safetensors": ["z"]}


def write_split(directory: Path) -> Path:
    """Write a file in two parts, and return its index."""
    where: dict[str, str] = {}
    for part, names in SPLIT.items():
        save_file({name: torch.full((2,), ord(name)) * 1.0 for name in names}, directory / part)
        where |= dict.fromkeys(names, part)
    index = directory / "m.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return index


def test_a_file_in_parts_is_one_file(tmp_path: Path) -> None:
    """Whatever part a tensor is in."""
    file = TensorFile(write_split(tmp_path))
    assert file.shapes == {"x": (2,), "y": (2,), "z": (2,)}
    assert torch.equal(file.read("z", (2,)), torch.full((2,), 122.0))
    with pytest.raises(WeightsError, match=r"m.safetensors.index.json: w: missing"):
        file.read("w", (2,))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"x": None}, r"a.safetensors: x: not in the index"),
        ({"w": "b.safetensors"}, r"b.safetensors: w: missing"),
        ({"z": "c.safetensors"}, r"c.safetensors: cannot be read \(No such file"),
        ({"z": "../b.safetensors"}, r"weight_map: z: expected a file name, got '../b"),
        ({"z": 3}, r"weight_map: z: expected a file name, got 3"),
    ],
)
def test_an_index_that_is_wrong(tmp_path: Path, change: dict[str, object], match: str) -> None:
    """Is refused by tensor and part."""
    index = write_split(tmp_path)
    where = json.loads(index.read_text())["weight_map"] | change
    index.write_text(json.dumps({"weight_map": {n: p for n, p in where.items() if p is not None}}))
    with pytest.raises(WeightsError, match=match):
        TensorFile(index)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "cannot be read"),
        ("[1]", "expected a mapping, got list"),
        ("[" * 100_000, "cannot be read"),
        ("{}", "weight_map: expected which tensor is in which file"),
        ('{"weight_map": []}', "weight_map: expected which"),
    ],
)
def test_an_index_that_is_none(tmp_path: Path, text: str, match: str) -> None:
    """Is refused by its name."""
    index = tmp_path / "m.safetensors.index.json"
    index.write_text(text)
    with pytest.raises(WeightsError, match=match):
        TensorFile(index)


def test_what_changes_after_it_was_checked(tmp_path: Path) -> None:
    """A file that is cut short or gone later is refused when it is read."""
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(4), "empty": torch.zeros(0, 2)}, path)
    file = TensorFile(path)
    assert file.read("empty", (0, 2)).shape == (0, 2)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(WeightsError, match="a: cut short while it was read"):
        file.read("a", (4,))
    path.unlink()
    with pytest.raises(WeightsError, match=r"cannot be read \(No such file"):
        file.read("a", (4,))


def test_types_are_those_asked_for(tmp_path: Path) -> None:
    """A floating point type, unless another one is named."""
    path = tmp_path / "a.safetensors"
    save_file({"i": torch.tensor([-3], dtype=torch.int8), "f": torch.ones(1)}, path)
    file = TensorFile(path)
    assert file.read("i", (1,), "I8").item() == -3.0
    assert file.read_raw("i", (1,), "I8").dtype == torch.int8
    with pytest.raises(WeightsError, match=r"i: expected \[1\] in one of .*, got \[1\] in I8"):
        file.read("i", (1,))
    with pytest.raises(WeightsError, match=r"f: expected \[1\] in I8, got \[1\] in F32"):
        file.read("f", (1,), "I8")
