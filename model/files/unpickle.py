"""Read the tensors of a file that `torch.save` wrote, and run nothing that is in it.

Such a file is a zip archive: a pickle, which says what there is, and the bytes of each storage. A
pickle is a program that may name any function. Here it may name the few things that a dictionary of
tensors is made of, each of which is something of our own; anything else is refused by name.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor

from model.errors import WeightsError

_MOST_PICKLE_BYTES = 1 << 20  # it holds names and sizes only
_MOST_STORAGE_BYTES = 1 << 28

_NOTES = {"PUT", "BINPUT", "LONG_BINPUT"}  # instructions to keep a value under a number

_STORAGES = {
    "FloatStorage": torch.float32, "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64, "IntStorage": torch.int32,
}  # fmt: skip


def read_tensors(data: bytes, source: str) -> dict[str, Tensor]:
    """Read a dictionary of tensors.

    Args:
        data: of the file.
        source: where it comes from, for messages.

    Returns:
        The tensors by name, on the CPU, wherever they were.

    Raises:
        WeightsError: if the file is something else, or holds anything but tensors.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            values = _Unpickler(archive, source).load()
    except WeightsError:
        raise
    # A broken pickle can fail in as many ways as its machine has instructions.
    except Exception as error:
        raise WeightsError(f"{source}: not a whole file of torch.save ({error!r})") from error
    if not isinstance(values, dict):
        raise WeightsError(f"{source}: expected tensors by name, got {type(values).__name__}")
    for name, tensor in values.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise WeightsError(
                f"{source}: {name!r}: expected a tensor, got {type(tensor).__name__}"
            )
    return values


@dataclass(frozen=True, slots=True)
class _Storage:
    """Numbers that tensors are views of, and the type they are of."""

    numbers: Tensor


class _Unpickler(pickle.Unpickler):
    """Build tensors, and nothing else."""

    def __init__(self, archive: zipfile.ZipFile, source: str) -> None:
        self._archive, self._source = archive, source
        # The archive of a file "af.pt" holds af/data.pkl, af/data/0, af/data/1 and so on. The
        # folder's name is whatever the file was called when it was saved.
        pickles = [n for n in archive.namelist() if n.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise WeightsError(f"{source}: expected one data.pkl, got {len(pickles)}")
        self._root = pickles[0].removesuffix("data.pkl")
        if f"{self._root}byteorder" in archive.namelist():
            order = self._member("byteorder", 16)
            if order != b"little":
                raise WeightsError(f"{source}: expected little-endian numbers, got {order!r}")
        program = self._member("data.pkl", _MOST_PICKLE_BYTES)
        for instruction, number, _ in pickletools.genops(program):
            # Python makes as much room as the number says; an honest one counts what came before.
            if instruction.name in _NOTES and int(number or 0) > len(program):
                self._refuse(f"at most {len(program)} notes", number)
        super().__init__(io.BytesIO(program))
        # `torch._utils._rebuild_tensor_v2` is the function that an honest file names for each
        # tensor. Our own function takes its place, which makes a tensor and does nothing else. A
        # file that names `os.system` gets an error.
        self._known: dict[tuple[str, str], object] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            **{("torch", name): dtype for name, dtype in _STORAGES.items()},
        }

    def find_class(self, module: str, name: str, /) -> Any:
        """Return what a name stands for, if it is one of a few."""
        if (module, name) not in self._known:
            raise WeightsError(f"{self._source}: refused: {module}.{name} is no tensor")
        return self._known[module, name]

    def persistent_load(self, pid: Any, /) -> _Storage:
        """Return the numbers that the pickle says are in a member of the archive."""
        kind, dtype, key, _device, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not str(key).isdigit():
            self._refuse("a storage", pid)
        data = self._member(f"data/{key}", _MOST_STORAGE_BYTES)
        if len(data) != count * dtype.itemsize:
            self._refuse(f"{count * dtype.itemsize} bytes in storage {key}", len(data))
        if not data:
            return _Storage(torch.empty(0, dtype=dtype))
        return _Storage(torch.frombuffer(bytearray(data), dtype=dtype))

    def _tensor(
        self,
        storage: _Storage,
        offset: int,
        shape: tuple[int, ...],
        stride: tuple[int, ...],
        *_: object,
    ) -> Tensor:
        if not isinstance(storage, _Storage):
            self._refuse("a tensor's storage", storage)
        if len(shape) != len(stride) or min((offset, *shape, *stride)) < 0:
            self._refuse("a tensor's shape", (offset, shape, stride))
        # A worked example: shape [2, 3], stride [3, 1] and offset 4 reach number 4 + 1 * 3 + 2 * 1
        # = 9, so the storage must have ten.
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        # Strides of zero could otherwise make of one number as many as there is no memory for.
        size = math.prod(shape)
        if size and (last >= len(storage.numbers) or size > len(storage.numbers)):
            self._refuse(f"a view of {len(storage.numbers)} numbers", (offset, shape, stride))
        return storage.numbers.as_strided(shape, stride, offset).clone()

    def _member(self, name: str, most: int) -> bytes:
        size = self._archive.getinfo(self._root + name).file_size
        if size > most:
            self._refuse(f"at most {most} bytes of {name}", size)
        return self._archive.read(self._root + name)

    def _refuse(self, expected: str, got: object) -> NoReturn:
        raise WeightsError(f"{self._source}: expected {expected}, got {got!r}")
