"""Keep what was measured in a file, and believe it only where it was measured.

The file is JSON: `{"format": 1, "records": [{"key": …, "sessions": …, …}]}`, one record for each
model, configuration and machine. A record that is for others is not wrong, only not ours.
"""

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from server.capacity.search import Measurement, as_row
from server.config.settings import Settings
from server.errors import ConfigError
from server.names import ROOT

# Another number, another meaning: a file of another format is refused, never guessed at.
_FORMAT = 1
_MAX_RECORDS = 64  # older ones make room

Key = Mapping[str, Any]  # Any: JSON
"""What a measurement is true for."""


class Record(BaseModel):
    """What was found for one key.

    Attributes:
        key: what it is true for.
        sessions: the largest number that is safe.
        date: UTC, ISO 8601.
        measurements: all that were made, in order, as `Measurement` has them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: dict[str, Any]
    sessions: int = Field(ge=1)
    date: str
    measurements: list[dict[str, Any]] = []


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    records: list[Record]


@dataclass(frozen=True, slots=True)
class Machine:
    """Say which machine it is, as far as speed depends on it.

    Attributes:
        cpu: model name.
        num_cores: that this process may use.
        memory_gib: of the whole machine, rounded.
        gpus: model names.
        torch: version.
    """

    cpu: str
    num_cores: int
    memory_gib: int
    gpus: tuple[str, ...]
    torch: str


def this_machine() -> Machine:
    """Describe the machine that this runs on, without loading PyTorch."""
    # Where the NVIDIA driver describes each device.
    gpus = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    return Machine(
        cpu=_field(Path("/proc/cpuinfo"), "model name") or platform.machine(),
        num_cores=len(os.sched_getaffinity(0)),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        gpus=tuple(_field(path, "Model") for path in gpus),
        torch=importlib.metadata.version("torch"),
    )


def key_of(settings: Settings, machine: Machine) -> Key:
    """Return what a measurement with these settings on this machine is true for.

    Weights of the same form take the same time, so files count by name and size.
    """
    source = ROOT / (settings.model.script or settings.model.dir)
    paths = sorted(path for path in source.glob("*") if path.is_file()) or [source]
    # A hash would read gigabytes at every start. The time of a step depends on sizes, not on
    # values.
    engine = settings.engine.model_dump(
        # None of these changes how long a step takes; the first is what is looked for.
        mode="json",
        exclude={"max_sessions", "hang_s", "loading_s", "devices"},
    )
    files = {path.name: path.stat().st_size for path in paths if path.exists()}
    key = {
        "model": settings.model.model_dump(mode="json"),
        "files": files,
        # Of several devices the first stands for all, as it is the one that is measured.
        "engine": {**engine, "device": settings.engine.places[0]},
        "machine": asdict(machine),
        "parley": importlib.metadata.version("parley"),
    }
    # As it is when it comes back from the file: tuples are lists there, and would compare unequal.
    canonical: Key = json.loads(json.dumps(key))
    return canonical


def find_record(path: Path, key: Key) -> Record | None:
    """Return the newest record for a key, None if there is none.

    Raises:
        ConfigError: the file is there and cannot be read, or is not one of ours.
    """
    return next((record for record in reversed(_read(path)) if record.key == key), None)


def write_record(
    path: Path, key: Key, sessions: int, date: str, measurements: Sequence[Measurement]
) -> None:
    """Keep a record; an older one for the same key is replaced. The file is whole at any time.

    Raises:
        ConfigError: the file cannot be written, or is there and not one of ours.
    """
    rows = [as_row(measured) for measured in measurements]
    new = Record(key=dict(key), sessions=sessions, date=date, measurements=rows)
    records = [record for record in _read(path) if record.key != key]
    file = _File(format=_FORMAT, records=[*records[-_MAX_RECORDS + 1 :], new])
    # Written beside it and renamed, which POSIX does at once or not at all: a reader never sees
    # half.
    beside = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(file.model_dump_json(indent=1) + "\n", encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise ConfigError(
            f"server.capacity_file: cannot write {path}: {error.strerror or error}"
        ) from None


def _read(path: Path) -> list[Record]:
    try:
        file = _File.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"server.capacity_file: cannot read {path}: {reason}") from None
    except ValidationError:
        file = None
    if file is None or file.format != _FORMAT:
        raise ConfigError(
            f"server.capacity_file: {path} is not what `parley capacity` writes; remove it, or "
            "choose another file"
        )
    return file.records


def _field(path: Path, name: str) -> str:
    """Return the first value of a `name : value` file, empty if there is none."""
    if not path.exists():
        return ""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        key, separator, value = line.partition(":")
        if separator and key.strip() == name:
            return value.strip()
    return ""
