"""Write a safetensors file one tensor at a time, so that it can be larger than memory."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

_TYPES = {
    "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "U8": torch.uint8,
    "I64": torch.int64,
}  # fmt: skip
_ALIGNMENT = 8  # of where the data begin, in bytes, as safetensors has it


class TensorWriter:
    """A file whose tensors are known by name, type and shape before the first one is written.

    A context manager: leaving it closes the file, and without an error checks that it is whole.

    Args:
        path: of the file, replaced if it is there.
        tensors: type, as a safetensors header calls it, and shape by name, in the order of the
            file.
        metadata: what the header says besides.
    """

    def __init__(
        self,
        path: Path,
        tensors: Mapping[str, tuple[str, tuple[int, ...]]],
        metadata: Mapping[str, str],
    ) -> None:
        header: dict[str, object] = {"__metadata__": dict(metadata)}
        end = 0
        self._starts: dict[str, int] = {}
        self._tensors = dict(tensors)
        for name, (dtype, shape) in tensors.items():
            start, end = end, end + math.prod(shape) * _TYPES[dtype].itemsize
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
            self._starts[name] = start
        text = json.dumps(header, separators=(",", ":")).encode()
        # The data begin at a multiple of eight bytes, so that they can be used in place. Spaces at
        # the end of JSON mean nothing.
        text += b" " * (-(8 + len(text)) % _ALIGNMENT)
        self._base = 8 + len(text)
        self._left = set(tensors)
        self._file = path.open("wb")
        self._file.write(len(text).to_bytes(8, "little") + text)

    def write(self, name: str, tensor: Tensor) -> None:
        """Write one tensor, in any order; it is converted to the type that the header says."""
        dtype, shape = self._tensors[name]
        assert tuple(tensor.shape) == shape, (name, tensor.shape, shape)
        data = tensor.detach().cpu().to(_TYPES[dtype]).contiguous()
        self._file.seek(self._base + self._starts[name])
        self._file.write(data.flatten().view(torch.uint8).numpy().data)
        self._left.discard(name)

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self._file.close()
        assert error or not self._left, f"not written: {sorted(self._left)[:3]}"
