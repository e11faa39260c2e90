"""Whether memory, descriptors, disk and clock are enough for what the limits allow."""

import datetime as dt
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from server.config.settings import Settings
from server.doctor.finding import Finding, error, ok, warning
from server.doctor.host import Host
from server.names import ROOT

_GIB = 1 << 30
# float32 at the engine's rate, and at the rate of the wire.
_WAITING_BYTES_PER_S, _KEPT_BYTES_PER_S = 4 * 16_000, 4 * 24_000
# Processes with their libraries, before any session and any weights: the gateway, and each engine
# with PyTorch.
_GATEWAY_BYTES, _ENGINE_BYTES = 300_000_000, 600_000_000
# A session's socket; an HTTP connection beside it, or a UDP port of its own.
_DESCRIPTORS_PER_SESSION = 2
_DESCRIPTORS_BESIDES = 256
_LITTLE_BYTES, _NO_BYTES = 2 * _GIB, 100 << 20


def num_places(settings: Settings) -> int:
    """Return how many sessions may be open at once, with all models and engines."""
    engines = [each.engine for each in settings.each_model]
    return sum(engine.max_sessions * len(engine.places) for engine in engines)


def session_bytes(settings: Settings) -> int:
    """Return how much the gateway may have to keep for one session, all limits reached at once."""
    server = settings.server
    return (
        server.max_waiting_audio_s * _WAITING_BYTES_PER_S
        + server.max_kept_audio_s * _KEPT_BYTES_PER_S
        # One to four bytes a character in memory, as the text needs; most text needs one.
        + server.max_conversation_chars
        + settings.images.max_kept_bytes
        + server.max_message_bytes
    )


def check_memory(
    settings: Settings, sessions: int, host: Host, model_bytes: int, *, num_engines: int = 1
) -> Iterator[Finding]:
    """Compare what limits allow with what there is.

    Args:
        settings: of the server.
        sessions: that are admitted.
        host: what there is.
        model_bytes: of all models in host memory, with the memory of their sessions.
        num_engines: of all models together.
    """
    # For example 16 sessions: 16 * (38 + 3 + 8 + 8 + 24) MB = 1.3 GB, 0.9 GB for the processes, and
    # the starter's 0.2 GB. Few will ever be near their limits; all of them at once is an attack.
    needed = _GATEWAY_BYTES + num_engines * _ENGINE_BYTES + model_bytes
    worst = needed + sessions * session_bytes(settings)
    have = host.memory_bytes
    seen = (
        f"{sessions} sessions at all their limits, and what is loaded: {_gb(worst)} of "
        f"{_gb(have)} that this process may use"
    )
    if needed > have:
        yield error(
            "memory",
            f"what is loaded needs some {_gb(needed)} alone, and {_gb(have)} may be used",
            "more memory, a smaller model, or engine.linears: int8",
        )
    elif worst > have:
        yield warning(
            "memory",
            seen,
            "lower server.max_waiting_audio_s (60 is enough for clients that send as they record), "
            "engine.max_sessions or server.max_conversation_chars, or give it more memory",
        )
    else:
        yield ok("memory", seen)


def check_descriptors(settings: Settings, sessions: int, host: Host) -> Iterator[Finding]:
    """Compare the limit of open files with the connections that may be open."""
    needed = (
        sessions * _DESCRIPTORS_PER_SESSION + settings.server.max_connections + _DESCRIPTORS_BESIDES
    )
    have = host.num_descriptors
    if have < needed:
        yield warning(
            "descriptors",
            f"{have} files may be open, and the limits allow for {needed}",
            "raise it: LimitNOFILE= in systemd, --ulimit nofile= in Docker, `ulimit -Hn` in a "
            "shell; or lower server.max_connections",
        )
    else:
        yield ok("descriptors", f"{have} files may be open; {needed} are enough")


def written_folders(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Yield what is written where: who wants it, and the folder."""
    yield "server.capacity_file", (ROOT / settings.server.capacity_file).parent
    yield "temporary files", Path(tempfile.gettempdir())
    if settings.approvals.audit_file is not None:
        yield "approvals.audit_file", settings.approvals.audit_file.absolute().parent
    if settings.usage.ledger is not None:
        yield "usage.ledger", settings.usage.ledger.absolute().parent
    if settings.recordings.enabled:
        yield "recordings.dir", settings.recordings.dir.absolute()


def check_disk(folders: Iterable[tuple[str, Path]]) -> Iterator[Finding]:
    """Say whether what is written has room.

    Args:
        folders: who writes, and where; a folder need not be there yet.
    """
    for who, folder in folders:
        there = next(each for each in (folder, *folder.parents) if each.exists())
        free = shutil.disk_usage(there).free
        if not os.access(there, os.W_OK):
            yield warning(
                "disk", f"{who}: {folder} cannot be written", "mount a volume there, or chown it"
            )
        elif free < _NO_BYTES:
            yield error(
                "disk", f"{who}: {_gb(free)} free at {folder}", "make room there, or choose another"
            )
        elif free < _LITTLE_BYTES:
            yield warning("disk", f"{who}: {_gb(free)} free at {folder}", "make room there")
        else:
            yield ok("disk", f"{who}: {_gb(free)} free at {folder}")


def check_shared_memory(folder: Path = Path("/dev/shm")) -> Iterator[Finding]:  # noqa: S108 - shm_overview(7)
    """Say whether gateway and engine can share memory, of which they need a page.

    Args:
        folder: where the C library keeps it.
    """
    if os.access(folder, os.W_OK):
        yield ok("shm", f"{folder} can be written")
    else:
        yield error(
            "shm",
            f"{folder} cannot be written: the engine has no process of its own without it",
            f"mount a tmpfs there with mode 1777 (containers: --tmpfs {folder}), or set "
            "engine.placement to thread",
        )


def check_clock(host: Host, newest: dt.datetime) -> Iterator[Finding]:
    """Say whether the clock can be right: ephemeral keys, certificates and credentials end by it.

    Args:
        host: its clock.
        newest: when the newest of our own files was written.
    """
    # A board without a battery begins in 1970. Our own files cannot be from the future.
    if host.now < newest - dt.timedelta(days=1):
        yield error(
            "clock",
            f"it is {host.now:%F %T} UTC by this machine, and a file of Parley is of {newest:%F}",
            "set the clock; keep it by NTP (systemd-timesyncd, chrony)",
        )
    elif host.is_clock_kept is False:
        yield warning(
            "clock",
            f"it is {host.now:%F %T} UTC by this machine, and nothing seems to keep its clock",
            "keep it by NTP (systemd-timesyncd, chrony); nothing, where the machine's host does so",
        )
    else:
        yield ok("clock", f"{host.now:%F %T} UTC")


def newest_file() -> dt.datetime:
    """Return when the newest source file of the server was written."""
    newest_s = max(path.stat().st_mtime for path in (ROOT / "server").glob("*.py"))
    return dt.datetime.fromtimestamp(newest_s, dt.UTC)


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB"
