"""How a training process keeps the memory that it frees."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8  # of <malloc.h>
_LARGEST = 2**31 - 1
_PAD_BYTES = 64 << 20


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed for the next who asks, where it is glibc.

    A training step takes and frees some hundred arrays of several megabytes. By default each is
    given back to the system and taken anew, and the system clears every page of it before it is
    used: up to half of the time of an operation that goes over its data once. The process stays as
    large as it has ever been.

    Returns:
        Whether the C library took it.
    """
    try:
        # mallopt(3). All from one heap, in large pieces, and the end of it is never cut off.
        set_option = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    options = (
        (_M_MMAP_MAX, 0),
        (_M_ARENA_MAX, 1),
        (_M_TRIM_THRESHOLD, _LARGEST),
        (_M_TOP_PAD, _PAD_BYTES),
    )
    return all(bool(set_option(name, value)) for name, value in options)
