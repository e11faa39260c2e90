"""Keep for which session an engine works, where it can be read after its process has died."""

from __future__ import annotations

import ctypes
import multiprocessing
from typing import Any

_MAX_BYTES = 256  # ids are far shorter


class AtWork:
    """Hold one session's id in memory that two processes share.

    It can be handed to a process that is being spawned. Writing takes well under a microsecond and
    no lock: it is read once the writer is dead, or stuck.
    """

    def __init__(self) -> None:
        # `Any`: the standard library declares its shared arrays as such.
        self._value: Any = multiprocessing.get_context("spawn").RawArray(ctypes.c_char, _MAX_BYTES)

    def write(self, session_id: str) -> None:
        """Write that work for a session begins, or with "" that it is done."""
        self._value.value = session_id.encode()[: _MAX_BYTES - 1]

    def read(self) -> str:
        """Return the session that was written last; "" for none."""
        return bytes(self._value.value).decode(errors="replace")
