"""What the machine has, as far as it bounds a server."""

import ctypes
import datetime as dt
import os
import resource
from dataclasses import dataclass
from pathlib import Path

# Version 2 of control groups, then version 1: cgroups(7).
_MEMORY_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
# adjtimex(2): the clock is not kept by anything. `struct timex` has 208 bytes on 64-bit Linux.
_TIME_ERROR = 5
_TIMEX_BYTES = 256


@dataclass(frozen=True, slots=True)
class Host:
    """This machine and this process.

    Attributes:
        memory_bytes: that the process may use: its container's limit, or the machine's memory.
        num_descriptors: that it may have open at most.
        user_id: whose process it is; 0 is root.
        now: by its clock.
        is_clock_kept: whether the clock is kept by the network's time; None where that cannot be
            known.
    """

    memory_bytes: int
    num_descriptors: int
    user_id: int
    now: dt.datetime
    is_clock_kept: bool | None


def this_host() -> Host:
    """Look at this machine."""
    return Host(
        memory_bytes=_memory_bytes(),
        num_descriptors=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        user_id=os.getuid(),
        now=dt.datetime.now(dt.UTC),
        is_clock_kept=_is_clock_kept(),
    )


def limit_in(text: str) -> int | None:
    """Read a limit of memory as control groups write it; None if there is none."""
    # Version 2 writes "max" for none, version 1 the largest number of pages: 2^63 less a page.
    if not text.strip().isdigit():
        return None
    limit = int(text)
    return limit if limit < 1 << 60 else None


def _memory_bytes() -> int:
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [limit_in(path.read_text()) for path in _MEMORY_LIMITS if path.is_file()]
    return min([physical, *(limit for limit in limits if limit is not None)])


def _is_clock_kept() -> bool | None:
    try:
        # A structure of zeros asks and sets nothing.
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (OSError, AttributeError):  # another system, another C library
        return None
    return None if state < 0 else state != _TIME_ERROR
