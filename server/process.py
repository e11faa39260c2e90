"""Set up the process that serves: its file descriptors, and its memory."""

import gc
import resource


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


def keep_loaded() -> None:
    """Leave what is loaded so far out of the collection of cycles, since it stays.

    To look through it again and again, whenever an event has many parts, would hold the event loop
    for a tenth of a second.
    """
    gc.collect()
    gc.freeze()
