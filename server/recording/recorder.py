"""Write all recordings in threads beside the event loop, and hand them to the store.

Two threads: one writes what happens in sessions into a folder of this machine, the other makes FLAC
of what is finished, hands it to the store and deletes what is too old. A store that hangs holds up
the second alone, and what waits for it waits on the disk.

    DIR/open/NAME       being written
    DIR/ready/NAME      finished, on its way to the store
    DIR/NAME            kept, where the store is this folder
"""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, Queue
from typing import Any, TypeAlias

import structlog

from model.messages import Command, Output
from server.config.records import RecordingSettings
from server.recording.files import (
    RecordingFiles,
    is_abandoned,
    read_about,
    to_flac,
    write_about,
)
from server.recording.store import Store, enforce, make_store
from server.recording.tracks import Stereo
from server.session.counts import Counts

_log = structlog.get_logger("recordings")

# After this, a recording that the store did not take is offered again, and old ones are deleted.
_AGAIN_S = 60.0
_SWEEP_S = 3600.0
_CLOSE_TIMEOUT_S = 10.0
# Of what is not sound: about what a line or an entry takes in memory.
_LINE_BYTES = 1_024

_Work: TypeAlias = Callable[[], None]


@dataclass(slots=True)
class Take:
    """One recording, from a client's consent to its end.

    Attributes:
        name: of its folder.
        num_missed: pieces that there was no room or no disk for.
        files: open ones; None before the first write, and after what went wrong.
        is_lost: whether it could not be written, and is not tried any more.
    """

    name: str
    num_missed: int = 0
    files: RecordingFiles | None = None
    is_lost: bool = False


class Recorder:
    """Hold what all recordings of a server share.

    Args:
        settings: of recordings.
        counts: of the gateway.
        engines: returns what is known of the engine of each model, by the model's name; JSON.
            Called once, on the thread that writes.
        store: where recordings are kept; None for what the settings say.

    Raises:
        ConfigError: a package is missing.
        OSError: the folder cannot be written.
    """

    def __init__(
        self,
        settings: RecordingSettings,
        counts: Counts,
        engines: Callable[[], Mapping[str, Mapping[str, Any]]],
        store: Store | None = None,
    ) -> None:
        self.settings = settings
        self._counts = counts
        self._describe = engines
        self._engines: Mapping[str, Mapping[str, Any]] = {}
        self._store = store or make_store(settings)
        self._open, self._ready = settings.dir / "open", settings.dir / "ready"
        for folder in (self._open, self._ready):
            folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._num_waiting_bytes = 0
        self._num_begun = 0
        self._work: Queue[tuple[_Work, int] | None] = Queue()
        self._finished: Queue[Path | None] = Queue()
        self._writing = threading.Thread(target=self._write, name="recordings", daemon=True)
        self._keeping = threading.Thread(target=self._keep, name="recordings kept", daemon=True)
        self._recover()
        self._writing.start()
        self._keeping.start()

    # From the event loop.

    def begin(self, session_id: str, model: str, rate_hz: int, about: Mapping[str, Any]) -> Take:
        """Begin a recording.

        Args:
            session_id: whose.
            model: that it has, by its own name.
            rate_hz: of its sound.
            about: what is known of the session; JSON.
        """
        self._num_begun += 1
        now = datetime.now(UTC)
        take = Take(f"{now:%Y%m%dT%H%M%SZ}_{session_id}_{self._num_begun}")
        self._counts.recordings += 1
        about = {
            "name": take.name,
            "session_id": session_id,
            "model": model,
            "started_at": now.isoformat(timespec="milliseconds"),
            "sample_rate_hz": rate_hz,
            "channels": {"left": "user", "right": "assistant"},
            "is_complete": False,
            **about,
        }
        self._queue(lambda: self._try(take, lambda: self._begin(take, model, rate_hz, about)), 0)
        return take

    def sound(self, take: Take, start: int, block: Stereo) -> None:
        """Add sound at a place."""
        self._put(take, lambda files: files.sound(start, block), block.nbytes)

    def event(self, take: Take, line: Mapping[str, Any], num_chars: int = 0) -> None:
        """Add a line to the timeline, of about so many characters."""
        self._put(take, lambda files: files.event(line), _LINE_BYTES + num_chars)

    def message(self, take: Take, message: Command | Output) -> None:
        """Add what the engine was told, or said."""
        pcm = getattr(message, "pcm", None)
        images = getattr(message, "images", ())
        size = sum(each.nbytes for each in (*images, *([] if pcm is None else [pcm])))
        self._put(take, lambda files: files.engine(message), _LINE_BYTES + size)

    def finish(self, take: Take, num_samples: int, about: Mapping[str, Any]) -> None:
        """End a recording; this is never left out."""
        self._queue(lambda: self._end(take, num_samples, about), 0)

    def close(self) -> None:
        """Write what waits, for at most ten seconds; what is left is finished at the next start."""
        until_s = time.monotonic() + _CLOSE_TIMEOUT_S
        self._work.put(None)
        self._writing.join(_CLOSE_TIMEOUT_S)
        self._finished.put(None)
        self._keeping.join(max(0.0, until_s - time.monotonic()))

    def _put(self, take: Take, write: Callable[[RecordingFiles], None], num_bytes: int) -> None:
        """Queue work for a recording, unless too much waits."""
        # A disk that does not respond must not fill the memory, nor hold up a call. Each sound has
        # its place in time, so a missing piece is a gap, and later sound does not shift.
        if self._num_waiting_bytes + num_bytes > self.settings.max_waiting_bytes:
            take.num_missed += 1
            self._counts.recording_pieces_missed += 1
            return

        def work() -> None:
            if take.files is not None:
                write(take.files)

        self._queue(lambda: self._try(take, work), num_bytes)

    def _queue(self, work: _Work, num_bytes: int) -> None:
        with self._lock:
            self._num_waiting_bytes += num_bytes
        self._work.put((work, num_bytes))

    # The thread that writes.

    def _write(self) -> None:
        # First, while nobody records: it may take a minute.
        self._engines = self._describe()
        while (next_ := self._work.get()) is not None:
            work, num_bytes = next_
            try:
                work()
            except Exception:  # noqa: BLE001 - the other recordings go on
                _log.exception("a recording failed")
            with self._lock:
                self._num_waiting_bytes -= num_bytes

    def _try(self, take: Take, work: _Work) -> None:
        if take.is_lost:
            take.num_missed += 1
            return
        try:
            work()
        except OSError as error:
            # A full disk, as a rule. What was written stays; the call goes on.
            take.is_lost = True
            take.num_missed += 1
            self._counts.recordings_failed += 1
            _log.error("recording stopped", name=take.name, error=str(error))

    def _begin(self, take: Take, model: str, rate_hz: int, about: Mapping[str, Any]) -> None:
        folder = self._open / take.name
        take.files = RecordingFiles(folder, rate_hz, about, self._engines[model])

    def _end(self, take: Take, num_samples: int, about: Mapping[str, Any]) -> None:
        if take.files is None:
            return
        whole = {"is_complete": not take.num_missed, "pieces_missed": take.num_missed, **about}
        try:
            take.files.finish(num_samples, whole)
        except OSError as error:
            _log.error("recording not finished", name=take.name, error=str(error))
            take.files.close()
        folder, take.files = take.files.folder, None
        self._to_store(folder)

    def _to_store(self, folder: Path) -> None:
        ready = self._ready / folder.name
        folder.replace(ready)
        self._finished.put(ready)

    # The thread that keeps.

    def _keep(self) -> None:
        waiting: list[Path] = []
        is_over = False
        while not is_over:
            with contextlib.suppress(Empty):
                folder = self._finished.get(timeout=_AGAIN_S if waiting else _SWEEP_S)
                is_over = folder is None
                waiting += [] if folder is None else [folder]
            if not is_over:
                waiting = [each for each in waiting if not self._kept(each)]
            if is_over or self._finished.empty():
                self._sweep()

    def _kept(self, folder: Path) -> bool:
        try:
            if self.settings.format == "flac":
                to_flac(folder)
            self._store.put(folder)
        except Exception as error:  # noqa: BLE001 - after any error it is tried again
            _log.error("recording not kept yet", name=folder.name, error=str(error))
            self._counts.recordings_failed += 1
            return False
        _log.info("recording kept", name=folder.name)
        return True

    def _sweep(self) -> None:
        try:
            gone = enforce(self._store, self.settings)
        except Exception as error:  # noqa: BLE001 - as in `_kept`
            _log.error("old recordings not deleted", error=str(error))
            return
        for name in gone:
            _log.info("recording deleted", name=name)
        self._counts.recordings_deleted += len(gone)

    def _recover(self) -> None:
        """Take up what a server left that did not end well."""
        for folder in sorted(self._open.iterdir()):
            if is_abandoned(folder):
                _log.warning("recording was interrupted", name=folder.name)
                with contextlib.suppress(OSError):
                    write_about(folder, read_about(folder) | {"is_complete": False})
                    self._to_store(folder)
        for folder in sorted(self._ready.iterdir()):
            self._finished.put(folder)
