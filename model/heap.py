"""Keep a process's heap from growing with what was freed; by glibc's mallopt(3), malloc_trim(3)."""

import contextlib
import ctypes

# Of its malloc.h.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_LARGE_BYTES = 512 * 1024
_ARENAS = 2


def share_arenas() -> bool:
    """Let threads share arenas; says whether the system knows how.

    Each of up to eight arenas for each core keeps what its threads once needed at most. Here one is
    the first thread's, and the others share the second: mostly one of them runs at a time.
    """
    return _set(_M_ARENA_MAX, _ARENAS)


def give_memory_back() -> bool:
    """Have large blocks returned as soon as they are freed; says whether the system knows how.

    glibc learns from the first large block that is freed to keep blocks of this size, up to 32 MiB,
    between smaller ones that are still in use. So a few appends of minutes of sound would leave a
    hundred megabytes for good. Not for an engine, which needs its large blocks again at once.
    """
    # A threshold that is set stays, and blocks above it come from mmap and go back at once.
    return _set(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def trim() -> None:
    """Return what is free to the system now, where it is glibc."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _set(parameter: int, value: int) -> bool:
    try:
        return bool(ctypes.CDLL(None).mallopt(parameter, value))
    except (OSError, AttributeError):  # another C library
        return False
