"""Read tensors from files that others publish, refusing what is not exactly what was expected."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from model.errors import WeightsError

# Exceptions that a header of another form leads to.
_BROKEN = (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError)
INDEX_SUFFIX = ".index.json"
FLOATS = {"F32", "F16", "BF16"}
_TORCH_TYPES = {
    "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I8": torch.int8, "U8": torch.uint8, "I64": torch.int64,
}  # fmt: skip
# A header of more than this is not a header; safetensors itself allows no more.
_MOST_HEADER_BYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class Source:
    """Where one tensor of ours comes from.

    Attributes:
        tensors: published names and shapes.
        convert: makes our tensor of them, in that order.
        types: of those that are no floats, as a header calls them, for instance I8.
    """

    tensors: Mapping[str, tuple[int, ...]]
    convert: Callable[..., Tensor]
    types: Mapping[str, str] = field(default_factory=dict)


class TensorFile:
    """A safetensors file whose header has been checked against its length.

    Tensors are read one at a time, and nothing else of the file is ever in memory, so that one
    much larger than memory can be converted.

    Args:
        path: of the file; or of the index, `*.index.json`, of one that is split into several.

    Attributes:
        path: of the file or index.
        shapes: of every tensor in it, by name.
        dtypes: the same, as the header calls them, for instance BF16.
        metadata: what the header says besides.

    Raises:
        WeightsError: if the file cannot be read, is not safetensors, or is cut short; then the
            first tensor that is not whole is named.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata: Mapping[str, str] = {}
        self._places: dict[str, _Place] = {}
        if path.name.endswith(INDEX_SUFFIX):
            for part, names in _read_index(path).items():
                self._add_part(part, names)
        else:
            places, self.metadata = _read_header(path)
            self._places.update(places)
        self.shapes: dict[str, tuple[int, ...]] = {n: p.shape for n, p in self._places.items()}
        self.dtypes: dict[str, str] = {n: p.dtype for n, p in self._places.items()}

    def read(self, name: str, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Read one tensor as float32.

        Args:
            name: of the tensor.
            shape: that it must have.
            dtype: that it must be of, as a header calls it; None for any floating point type.

        Raises:
            WeightsError: if it is missing, or has another shape or type.
        """
        return self.read_raw(name, shape, dtype).to(torch.float32)

    def read_raw(self, name: str, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        """Read one tensor in the type that it is stored in; arguments as `read`."""
        self.check(name, shape, dtype)
        place = self._places[name]
        # A file that is mapped into memory and grows shorter meanwhile kills the process; one that
        # is read gives an error.
        buffer = bytearray(place.end - place.start)
        try:
            with place.path.open("rb", buffering=0) as file:
                file.seek(place.start)
                view, done = memoryview(buffer), 0
                while done < len(buffer) and (count := file.readinto(view[done:])):
                    done += count
        except OSError as error:
            raise WeightsError(f"{place.path}: cannot be read ({error.strerror})") from error
        if done < len(buffer):
            raise WeightsError(f"{place.path}: {name}: cut short while it was read")
        if not buffer:
            return torch.empty(tuple(shape), dtype=_TORCH_TYPES[place.dtype])
        return torch.frombuffer(buffer, dtype=_TORCH_TYPES[place.dtype]).view(tuple(shape))

    def check(self, name: str, shape: Sequence[int], dtype: str | None = None) -> None:
        """Refuse a tensor as `read` does, without reading it."""
        if name not in self.shapes:
            raise WeightsError(f"{self.path}: {name}: missing, expected {list(shape)}")
        allowed = FLOATS if dtype is None else {dtype}
        if self.shapes[name] != tuple(shape) or self.dtypes[name] not in allowed:
            kind = f"one of {sorted(allowed)}" if dtype is None else dtype
            raise WeightsError(
                f"{self.path}: {name}: expected {list(shape)} in {kind}, "
                f"got {list(self.shapes[name])} in {self.dtypes[name]}"
            )

    def check_source(self, source: Source) -> None:
        """Refuse a tensor that `source` needs as `read` does, without reading it."""
        for name, shape in source.tensors.items():
            self.check(name, shape, source.types.get(name))

    def _add_part(self, path: Path, names: set[str]) -> None:
        places, _ = _read_header(path)
        # The index says which tensors a part holds. A part that holds others is of another
        # download.
        if unlike := sorted(names ^ places.keys()):
            what = "missing" if unlike[0] in names else "not in the index"
            raise WeightsError(f"{path}: {unlike[0]}: {what}")
        self._places.update(places)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tensor is: its type, its shape, and its bytes in a file."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds a mapping.

    Raises:
        WeightsError: if it cannot be read, or holds something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: cannot be read ({error})") from error
    if not isinstance(values, dict):
        raise WeightsError(f"{path}: expected a mapping, got {type(values).__name__}")
    return values


def _read_index(path: Path) -> dict[Path, set[str]]:
    """Return which tensors are in which part of a file that is split."""
    parts: dict[Path, set[str]] = {}
    where = read_json(path).get("weight_map")
    if not isinstance(where, dict) or not where:
        raise WeightsError(f"{path}: weight_map: expected which tensor is in which file")
    for name, part in where.items():
        if not isinstance(part, str) or Path(part).name != part:
            raise WeightsError(f"{path}: weight_map: {name}: expected a file name, got {part!r}")
        parts.setdefault(path.with_name(part), set()).add(name)
    return parts


def _read_header(path: Path) -> tuple[dict[str, _Place], dict[str, str]]:
    """Return where the tensors in a file are, each within the file, and what it says besides."""
    try:
        with path.open("rb") as file:
            # A safetensors file: eight bytes with the length of the header, the header as JSON,
            # then the tensors one after another. An entry of the header:
            #
            #     "W": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}
            #
            # Offsets count from the end of the header. So a file whose header has 100 bytes holds W
            # in its bytes 108 to 119.
            # Source: the format's own description, https://github.com/huggingface/safetensors.
            size = int.from_bytes(file.read(8), "little")
            if not 2 <= size <= _MOST_HEADER_BYTES:
                raise WeightsError(f"{path}: not a safetensors file")
            text = file.read(size)
            length = file.seek(0, 2)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        header: dict[str, dict[str, Any]] = json.loads(text)
        metadata: dict[str, str] = dict(header.pop("__metadata__", {}))
        places = {name: _place(path, 8 + size, entry) for name, entry in header.items()}
    except _BROKEN as error:
        raise WeightsError(f"{path}: not a safetensors file, or cut short in its header") from error
    # The first tensor that is not whole says how far the download came.
    cut = sorted((place.end, name) for name, place in places.items() if place.end > length)
    if cut:
        end, name = cut[0]
        place = places[name]
        raise WeightsError(
            f"{path}: cut short: {name} {list(place.shape)} in {place.dtype} should end at byte "
            f"{end}, the file at byte {max(p.end for p in places.values())}; "
            f"it ends at byte {length}"
        )
    try:  # the format's own checks: no holes, no overlaps, as many bytes as the shapes say
        safetensors.safe_open(path, framework="pt")
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{path}: not a whole safetensors file ({error})") from error
    return places, metadata


def _place(path: Path, base: int, entry: Mapping[str, Any]) -> _Place:
    start, end = entry["data_offsets"]
    return _Place(path, str(entry["dtype"]), tuple(entry["shape"]), base + start, base + end)
