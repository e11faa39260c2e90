"""A training process keeps its memory."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Prints how many pages are cleared anew when 8 arrays of 48 MB are made and freed, each in turn,
# for the second time.
_PROGRAM = """
import resource, sys
import torch
from model.training.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def rounds():
    for _ in range(8):
        torch.ones(12 << 20)
rounds()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
rounds()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(way: str) -> int:
    """Run the program in a process of its own, whose memory is its own."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, way], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc's mallopt")
def test_freed_memory_is_kept() -> None:
    """The same array is taken again and again, and its pages stay; by default they are new."""
    # One in eight may come to lie at a place of its own, behind something small.
    assert pages("keep") < pages("give") / 2
