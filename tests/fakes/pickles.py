"""What `torch.save` writes, and pickles that try something else."""

import io
from collections.abc import Callable
from typing import Any

import torch


def saved(value: object) -> bytes:
    """Return what `torch.save` writes."""
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


class Calls:
    """Something that calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *args: object) -> None:
        self._call = (function, args)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        """Return the call."""
        return self._call
