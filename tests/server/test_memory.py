"""What is freed is given back, where the system knows how."""

import platform

from server.memory import give_memory_back


def test_large_blocks_are_given_back() -> None:
    """By glibc; another C library is no error."""
    assert give_memory_back() is (platform.libc_ver()[0] == "glibc")
