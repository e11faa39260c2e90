"""A pickle may hold tensors; whatever else it tries is refused by name, and not done."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from model.errors import WeightsError
from model.files.unpickle import read_tensors
from tests.fakes.pickles import Calls, saved


def archive(program: bytes, **members: bytes) -> bytes:
    """Return an archive with a pickle of one's own."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        opened.writestr("archive/data.pkl", program)
        for name, data in members.items():
            opened.writestr(f"archive/{name.replace('__', '/')}", data)
    return file.getvalue()


def test_tensors_are_read() -> None:
    """Of every type there may be, views and strides included, and each with memory of its own."""
    whole = torch.randn(4, 6)
    given = {
        "bf16": torch.randn(3, 1, 1, 5).bfloat16(), "half": torch.randn(2).half(),
        "long": torch.tensor([[1, -2]]), "int": torch.tensor([3], dtype=torch.int32),
        "view": whole[1:3, ::2], "turned": whole.T, "scalar": torch.tensor(1.5),
        "empty": torch.empty(0, 3),
    }  # fmt: skip
    read = read_tensors(saved(given), "a.pt")
    assert read.keys() == given.keys()
    for name, tensor in given.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)
        assert read[name].untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


def test_where_a_tensor_was_does_not_matter() -> None:
    """It was saved on a GPU; there need be none here."""
    data = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(saved({"a": torch.ones(2)}))) as old,
        zipfile.ZipFile(data, "w") as new,
    ):
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("data.pkl"):
                assert content.count(b"X\x03\x00\x00\x00cpu") == 1
                content = content.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
            new.writestr(name, content)
    assert torch.equal(read_tensors(data.getvalue(), "a.pt")["a"], torch.ones(2))


@pytest.mark.parametrize(
    ("function", "args", "name"),
    [
        (os.system, ("touch {}",), "posix.system"),
        (eval, ("open('{}', 'w')",), "__builtin__.eval"),
        (Path.touch, (Path("x"),), "__builtin__.getattr"),
        (torch.load, ("{}",), "torch.serialization.load"),
        (nn.Linear, (2, 2), "torch.nn.modules.linear.Linear"),
        (torch.ones, (2,), "torch._C._VariableFunctions.ones|torch.ones|__builtin__.getattr"),
        (bytearray, (10**12,), "__builtin__.bytearray"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("depth", ["the whole", "beside a tensor"])
def test_calls_are_refused(
    tmp_path: Path, function: Callable[..., Any], args: tuple[Any, ...], name: str, depth: str
) -> None:
    """By the name of what would be called; nothing is."""
    target = tmp_path / "made"
    filled = tuple(a.format(target) if isinstance(a, str) else a for a in args)
    call = Calls(function, *filled)
    program = pickle.dumps(call if depth == "the whole" else {"a": 1, "b": [call]}, protocol=2)
    with pytest.raises(WeightsError, match=rf"bad\.pt: refused: ({name}) is no tensor"):
        read_tensors(archive(program), "bad.pt")
    assert not target.exists()


def test_a_module_is_no_tensor() -> None:
    """Nor is a parameter: what is expected is known exactly."""
    with pytest.raises(WeightsError, match=r"refused: torch.nn.modules.linear.Linear"):
        read_tensors(saved(nn.Linear(2, 2)), "bad.pt")
    with pytest.raises(WeightsError, match=r"refused: torch._utils._rebuild_parameter"):
        read_tensors(saved({"a": nn.Parameter(torch.ones(2))}), "bad.pt")


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ([torch.ones(1)], "expected tensors by name, got list"),
        ({"a": 3}, "'a': expected a tensor, got int"),
        ({1: torch.ones(1)}, "1: expected a tensor, got Tensor"),
        ({"a": OrderedDict()}, "'a': expected a tensor, got OrderedDict"),
    ],
)
def test_only_tensors_by_name(value: object, match: str) -> None:
    """Numbers and lists would be harmless, and are not expected."""
    with pytest.raises(WeightsError, match=match):
        read_tensors(saved(value), "bad.pt")


class Persistent(pickle.Pickler):
    """Writes tensors as `torch.save` does, with what one likes in them."""

    def __init__(self, file: io.BytesIO, storage: tuple[object, ...]) -> None:
        super().__init__(file, protocol=2)
        self._storage = storage

    def persistent_id(self, obj: object) -> tuple[object, ...] | None:
        """Stand a storage in for a marker."""
        return self._storage if obj == "STORAGE" else None


def tensor_with(
    storage: tuple[object, ...], offset: int, shape: object, stride: object, first: object = None
) -> bytes:
    """Return an archive with a tensor of a storage of four float32."""
    file = io.BytesIO()
    rebuild = torch._utils._rebuild_tensor_v2
    args: tuple[Any, ...] = (first or "STORAGE", offset, shape, stride, False, OrderedDict())
    Persistent(file, storage).dump({"a": Calls(rebuild, *args)})
    return archive(file.getvalue(), data__0=bytes(16))


FOUR = ("storage", torch.FloatStorage, "0", "cpu", 4)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (tensor_with(FOUR, 1, (4,), (1,)), "expected a view of 4 numbers"),
        (tensor_with(FOUR, 0, (2, 2), (4, 1)), "expected a view of 4 numbers"),
        (tensor_with(FOUR, 0, (10**9, 10**9), (0, 0)), "expected a view of 4 numbers"),
        (tensor_with(FOUR, -1, (1,), (1,)), "expected a tensor's shape"),
        (tensor_with(FOUR, 0, (2,), (-1,)), "expected a tensor's shape"),
        (tensor_with(FOUR, 0, (2,), ()), "expected a tensor's shape"),
        (tensor_with(FOUR, 0, "ab", (1, 1)), "not a whole file of torch.save"),
        (tensor_with(FOUR, 0, (1,), (1,), first=3), "expected a tensor's storage, got 3"),
        (tensor_with((*FOUR[:4], 5), 0, (1,), (1,)), "expected 20 bytes in storage 0, got 16"),
        (tensor_with(("module", *FOUR[1:]), 0, (1,), (1,)), "expected a storage"),
        (tensor_with(FOUR[:2], 0, (1,), (1,)), "not a whole file of torch.save"),
        (
            tensor_with((*FOUR[:2], "../x", "cpu", 4), 0, (1,), (1,)),
            "expected a storage",
        ),
        (tensor_with((*FOUR[:2], "7", "cpu", 4), 0, (1,), (1,)), "not a whole file of torch.save"),
        (
            tensor_with(("storage", torch.ComplexFloatStorage, "0", "cpu", 4), 0, (1,), (1,)),
            "refused: torch.ComplexFloatStorage",
        ),
        (b"not a zip", "not a whole file of torch.save"),
        (archive(b""), "not a whole file of torch.save"),
        (archive(b"\x80\x02."), "not a whole file of torch.save"),
        (archive(b"\x80\x02}."), None),
        (archive(b"\x80\x02}r\xff\xff\xff\x7f."), "expected at most 9 notes, got 2147483647"),
        (archive(b"\x80\x02}p99999\n."), "expected at most 11 notes, got 99999"),
        (archive(b"\x80\x02}.", byteorder=b"big"), "expected little-endian numbers, got b'big'"),
        (archive(bytes(2 << 20)), "expected at most 1048576 bytes of data.pkl"),
        (archive(b"\x80\x02}.", more__data=b"x.pkl"), None),
    ],
)
def test_broken_and_dishonest_files(data: bytes, match: str | None) -> None:
    """A view beyond its storage, a storage of another size, a program without an end."""
    if match is None:
        assert read_tensors(data, "odd.pt") == {}
        return
    with pytest.raises(WeightsError, match=match):
        read_tensors(data, "odd.pt")
