"""Read tensors from files that others publish, refusing what is not exactly what was expected."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from model.errors import WeightsError

_FLOATS = {"F32", "F16", "BF16"}
# A header of more than this is not a header; safetensors itself allows no more.
_MOST_HEADER_BYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class Source:
    """Where one tensor of ours comes from.

    Attributes:
        tensors: published names and shapes.
        convert: makes our tensor of them, in that order.
    """

    tensors: Mapping[str, tuple[int, ...]]
    convert: Callable[..., Tensor]


class TensorFile:
    """A safetensors file whose header has been checked against its length.

    Tensors are read one at a time, so that a file much larger than memory can be converted.

    Args:
        path: of the file.

    Attributes:
        path: of the file.
        shapes: of every tensor in it, by name.
        dtypes: the same, as the header calls them, for instance BF16.

    Raises:
        WeightsError: if the file cannot be read, is not safetensors, or is cut short; then the
            first tensor that is not whole is named.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        header = _read_header(path)
        try:
            self._file: Any = safetensors.safe_open(path, framework="pt")
        except (OSError, safetensors.SafetensorError) as error:
            raise WeightsError(f"{path}: not a whole safetensors file ({error})") from error
        self.shapes: dict[str, tuple[int, ...]] = {n: tuple(e["shape"]) for n, e in header.items()}
        self.dtypes: dict[str, str] = {n: e["dtype"] for n, e in header.items()}

    def read(self, name: str, shape: Sequence[int]) -> Tensor:
        """Read one floating point tensor as float32.

        Raises:
            WeightsError: if it is missing, or has another shape or type.
        """
        self.check(name, shape)
        tensor: Tensor = self._file.get_tensor(name)
        return tensor.to(torch.float32)

    def check(self, name: str, shape: Sequence[int]) -> None:
        """Refuse a tensor as `read` does, without reading it."""
        if name not in self.shapes:
            raise WeightsError(f"{self.path}: {name}: missing, expected {list(shape)}")
        if self.shapes[name] != tuple(shape) or self.dtypes[name] not in _FLOATS:
            raise WeightsError(
                f"{self.path}: {name}: expected {list(shape)} in one of {sorted(_FLOATS)}, "
                f"got {list(self.shapes[name])} in {self.dtypes[name]}"
            )


def _read_header(path: Path) -> dict[str, dict[str, Any]]:
    """Return the entries of the tensors in a file, each of which ends within the file."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if not 2 <= size <= _MOST_HEADER_BYTES:
                raise WeightsError(f"{path}: not a safetensors file")
            text = file.read(size)
            length = file.seek(0, 2)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        header: dict[str, dict[str, Any]] = json.loads(text)
        header.pop("__metadata__", None)
        ends = {name: 8 + size + int(e["data_offsets"][1]) for name, e in header.items()}
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise WeightsError(f"{path}: not a safetensors file, or cut short in its header") from error
    cut = sorted((end, name) for name, end in ends.items() if end > length)
    if cut:
        end, name = cut[0]
        entry = header[name]
        raise WeightsError(
            f"{path}: cut short: {name} {entry['shape']} in {entry['dtype']} should end at byte "
            f"{end}, the file at byte {max(ends.values())}; it ends at byte {length}"
        )
    return header
