"""Set up the process that serves: its file descriptors, and its memory."""

import ctypes
import gc
import resource

_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
_LARGE_BYTES = 512 * 1024


def raise_descriptor_limit() -> int:
    """Raise the soft limit to the hard one; returns the limit that holds."""
    # getrlimit(2): a process may raise its soft limit up to the hard one by itself.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            return soft  # some systems have a hard limit that is none
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def give_memory_back() -> bool:
    """Have large blocks returned as soon as they are freed; says whether the system knows how.

    glibc learns from the first large block that is freed to keep blocks of this size, up to 32 MiB,
    between smaller ones that are still in use. So a few appends of minutes of sound would leave a
    hundred megabytes for good.
    """
    try:
        # mallopt(3): a threshold that is set stays, and blocks above it come from mmap and go back
        # at once.
        return bool(ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES))
    except (OSError, AttributeError):  # another C library
        return False


def keep_loaded() -> None:
    """Leave what is loaded so far out of the collection of cycles, since it stays.

    To look through it again and again, whenever an event has many parts, would hold the event loop
    for a tenth of a second.
    """
    gc.collect()
    gc.freeze()
