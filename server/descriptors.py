"""Have as many file descriptors as the system lets this process have."""

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
