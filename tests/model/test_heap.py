"""A process gives memory back where its C library knows how."""

import platform

from model.heap import give_memory_back, share_arenas


def test_the_heap_is_set_up() -> None:
    """By glibc; another C library is no error."""
    is_glibc = platform.libc_ver()[0] == "glibc"
    assert (give_memory_back(), share_arenas()) == (is_glibc, is_glibc)
