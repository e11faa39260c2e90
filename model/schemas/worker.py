"""Sit at a desk in a process of its own, within bounds of memory and time.

A job that goes beyond them ends the process, in whatever code it is: by the timer of the processor
time it has used, by an allocation that fails, by a stack that overflows. Its owner starts another.

A message is its length in four bytes and a JSON object. The first says what the process is for;
then each is a job, and answered by one.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import struct
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from model.heap import trim

_LENGTH = struct.Struct(">I")
_NAME = "parley-schemas"  # at most 15 characters, as Linux shows them

# Where every core is busy it still has a tenth of one, and is there within seconds. At 15 it had a
# thirtieth, and others waited half a minute for their first schema.
_NICENESS = 10

# What a process may hold beyond what it starts with, between two jobs. Grammars of calls that
# nobody goes on with would otherwise stay until they are too many: one of a constant of 8,000
# letters takes 3.5 MB.
_KEPT_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bound one job.

    Attributes:
        memory_bytes: address space that the process may take beyond what it starts with.
        cpu_s: processor time of a job.
        wall_s: time of a job on the clock, after which the owner kills the process. Far more than
            `cpu_s`, since a loaded machine may let the process wait.
    """

    memory_bytes: int = 512 << 20
    cpu_s: float = 1.0
    wall_s: float = 10.0


def send(connection: socket.socket, message: dict[str, Any]) -> None:
    """Send one message."""
    data = json.dumps(message).encode()
    connection.sendall(_LENGTH.pack(len(data)) + data)


def receive(connection: socket.socket) -> dict[str, Any] | None:
    """Return the next message, None if the other end is gone."""
    head = _exactly(connection, _LENGTH.size)
    data = None if head is None else _exactly(connection, *_LENGTH.unpack(head))
    return None if data is None else json.loads(data)


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            return None
        data += part
    return bytes(data)


def main(descriptor: int) -> None:
    """Work until the owner is gone.

    Args:
        descriptor: of the connection to the owner.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # when to stop is for the owner to say
    with contextlib.suppress(OSError):  # be recognised in lists of processes
        Path("/proc/self/comm").write_text(_NAME, encoding="ascii")
    connection = socket.socket(fileno=descriptor)
    first = receive(connection)
    if first is None:
        return
    bounds = Bounds(**first["bounds"])
    if first["vocabulary"] is None:
        os.nice(_NICENESS)  # whoever is being spoken to comes first
    from model.schemas.desk import Desk  # noqa: PLC0415 - it takes a moment, also to load

    desk = Desk(_vocabulary(first["vocabulary"]))
    # What the library of a check takes to load is no job's doing, and must not count as one's.
    desk.misfit("{}", "{}")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The bound is on top of what the process has mapped already, which depends on libraries and on
    # the machine.
    mapped, resident = _memory()
    limit = mapped + bounds.memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    send(connection, {"ready": os.getpid()})
    while (job := receive(connection)) is not None:
        # The default of this signal ends the process, even deep in compiled code.
        # Source: setitimer(2): ITIMER_PROF counts the process's own and the system's time on its
        # behalf, and sends SIGPROF.
        signal.setitimer(signal.ITIMER_PROF, bounds.cpu_s)
        answer = _done(desk, job)
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        send(connection, answer)
        if _memory()[1] > resident + _KEPT_BYTES:
            desk.forget()
            trim()


def _done(desk: Any, job: dict[str, Any]) -> dict[str, Any]:
    kind = job.pop("kind")
    try:
        match kind:
            case "check":
                return {"done": asdict(desk.check(**job))}
            case "write":
                return {"done": asdict(desk.write(**job))}
            case _:
                return {"done": desk.misfit(**job)}
    except MemoryError:
        return {"broke": "memory"}
    except BaseException as error:  # noqa: BLE001 - the compiler's panics are no `Exception`
        from model.errors import GrammarError  # noqa: PLC0415 - loaded with the desk

        if isinstance(error, GrammarError):
            return {"refused": str(error)}
        return {"broke": f"{type(error).__name__}"}


def _vocabulary(given: dict[str, Any] | None) -> Any:
    """Return the vocabulary as far as spelling needs it."""
    if given is None:
        return None
    from model.vocabulary import TurnVocabulary  # noqa: PLC0415 - only for an engine

    return TurnVocabulary(**given, encode=lambda _: [], voices={})


def _memory() -> tuple[int, int]:
    """Return what the process has mapped and what is resident, in bytes; 0 where nobody tells."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0, 0
    return int(pages[0]) * resource.getpagesize(), int(pages[1]) * resource.getpagesize()


if __name__ == "__main__":
    main(int(sys.argv[1]))
