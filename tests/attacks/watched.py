"""Serve as `parley` does, and note the longest time that anything held the event loop.

    python -m tests.attacks.watched FILE serve --config configs/scripted.yaml

Each callback of the loop is timed, in processor time of its thread: what other processes take of
the processor, and other threads of the interpreter, is not its doing. FILE holds the longest so
far, in milliseconds, as one float64; who writes 0.0 there begins anew.
"""

import asyncio
import mmap
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

from server import cli

LONGEST = struct.Struct("d")


def main() -> None:
    """Watch, and hand over to the command."""
    _, path, *arguments = sys.argv
    with Path(path).open("r+b") as file:
        shared = mmap.mmap(file.fileno(), LONGEST.size)
    # The loop runs every callback, and every step of every task, by this; asyncio's own debug mode
    # measures the same, in time that passes.
    run: Callable[[asyncio.Handle], None] = vars(asyncio.Handle)["_run"]

    def timed(handle: asyncio.Handle) -> None:
        begin_s = time.thread_time()
        run(handle)
        held_ms = (time.thread_time() - begin_s) * 1000
        if held_ms > LONGEST.unpack_from(shared)[0]:
            LONGEST.pack_into(shared, 0, held_ms)

    asyncio.Handle._run = timed  # type: ignore[assignment, method-assign]
    sys.argv = ["parley", *arguments]
    cli.run()


if __name__ == "__main__":
    main()
