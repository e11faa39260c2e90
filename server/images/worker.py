"""Read pictures in a process of its own, within bounds of memory and time.

What clients send is read by large libraries in C, and by readers in Python that can be kept busy
for seconds by a file of a few megabytes. Here neither can hold up or end anything but this process;
its owner starts another (`server.images.service`).

A message is two lengths, a JSON object and bytes; the first says what the bounds are, each that
follows is a picture to read, and answered by one.
"""

import json
import os
import resource
import signal
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

LENGTHS = struct.Struct("!II")
_NAME = "parley-images"  # at most 15 characters, as Linux shows them
_NICENESS = 5  # whoever is being spoken to comes first


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bound the reading of one picture.

    Attributes:
        memory_bytes: address space that the process may take beyond what it starts with.
        cpu_s: processor time.
        wall_s: time on the clock, after which the owner kills the process. Far more than `cpu_s`,
            since a loaded machine may let the process wait.
    """

    memory_bytes: int = 768 << 20
    cpu_s: float = 2.0
    wall_s: float = 15.0


def framed(head: dict[str, Any], data: bytes = b"") -> bytes:
    """Return a message."""
    text = json.dumps(head).encode()
    return LENGTHS.pack(len(text), len(data)) + text + data


def main(bounds: Bounds, requests: BinaryIO, answers: BinaryIO) -> None:
    """Work until the owner is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # when to stop is for the owner to say
    os.nice(_NICENESS)
    try:
        Path("/proc/self/comm").write_text(_NAME, encoding="ascii")  # in lists of processes
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError):
        pages = 0
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Of the address space, since Linux has no limit on what is really used. What Python took until
    # here is not the picture's.
    limit = pages * resource.getpagesize() + bounds.memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    while len(lengths := requests.read(LENGTHS.size)) == LENGTHS.size:
        text_bytes, data_bytes = LENGTHS.unpack(lengths)
        job = json.loads(requests.read(text_bytes))
        # The default of this signal ends the process, even deep in compiled code.
        # setitimer(2): ITIMER_PROF counts the time of all threads of the process, in it and in the
        # kernel.
        signal.setitimer(signal.ITIMER_PROF, bounds.cpu_s)
        answer = _answer(job, requests.read(data_bytes))
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        answers.write(answer)
        answers.flush()


def _answer(job: dict[str, Any], data: bytes) -> bytes:
    from server.errors import ImageError  # noqa: PLC0415 - within the bounds, as all libraries are
    from server.images.reading import read_file, read_frame, to_jpeg  # noqa: PLC0415

    try:
        pixels = read_frame(data, **job) if "codec" in job else read_file(data, **job)
        height, width, _ = pixels.shape
        return framed({"height": height, "width": width}, pixels.tobytes() + to_jpeg(pixels))
    except ImageError as error:
        return framed({"refused": str(error)})
    except MemoryError:
        os._exit(1)  # what the attempt has left behind is not the next one's


if __name__ == "__main__":
    main(Bounds(**json.loads(sys.argv[1])), sys.stdin.buffer, sys.stdout.buffer)
