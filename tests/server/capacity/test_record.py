"""The file of measurements: believed for what it was measured for, and for nothing else."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from server.capacity.record import Machine, find_record, key_of, this_machine, write_record
from server.config.settings import Settings
from server.errors import ConfigError
from tests.server.capacity.test_search import GOOD

MACHINE = Machine(cpu="Abacus", num_cores=2, memory_gib=8, gpus=(), torch="1.0")
SETTINGS = Settings.model_validate({"engine": {"linears": "int8"}})


def test_what_is_kept_is_found(tmp_path: Path) -> None:
    """A newer record replaces the older for the same; others stay."""
    path, key = tmp_path / "made" / "capacity.json", key_of(SETTINGS, MACHINE)
    other = key_of(SETTINGS, dataclasses.replace(MACHINE, num_cores=4))
    assert find_record(path, key) is None
    write_record(path, key, 8, "2026-01-01", [GOOD])
    write_record(path, other, 16, "2026-01-01", [dataclasses.replace(GOOD, tick_p99_ms=1e999)])
    write_record(path, key, 9, "2026-01-02", [])
    found, others = find_record(path, key), find_record(path, other)
    assert found is not None
    assert (found.sessions, found.date, found.measurements) == (9, "2026-01-02", [])
    assert others is not None
    assert others.sessions == 16
    assert others.measurements[0]["tick_p99_ms"] is None
    assert [entry.name for entry in path.parent.iterdir()] == ["capacity.json"]


@pytest.mark.parametrize(
    "changed",
    [
        {"engine": {"linears": "dense"}},
        {"engine": {"linears": "int8", "num_threads": 2}},
        {"engine": {"linears": "int8"}, "model": {"name": "other"}},
        {"engine": {"linears": "int8"}, "model": {"dir": "model/elsewhere"}},
    ],
)
def test_other_settings_are_another_measurement(changed: dict[str, object]) -> None:
    """Whatever may change the speed; the bound itself and the server's settings do not."""
    key = key_of(SETTINGS, MACHINE)
    assert key_of(Settings.model_validate(changed), MACHINE) != key
    same = {"engine": {"linears": "int8", "max_sessions": 7}, "server": {"port": 1}}
    assert key_of(Settings.model_validate(same), MACHINE) == key


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Machine)])
def test_another_machine_is_another_measurement(field: str) -> None:
    """In whatever it differs."""
    other: dict[str, Any] = {field: ("x",) if field == "gpus" else 99}
    changed = dataclasses.replace(MACHINE, **other)
    assert key_of(SETTINGS, changed) != key_of(SETTINGS, MACHINE)


def test_other_weights_are_another_measurement(tmp_path: Path) -> None:
    """Files count by name and size."""
    settings = Settings.model_validate({"model": {"dir": str(tmp_path)}})
    keys = [key_of(settings, MACHINE)]
    for text in ("a", "b", "longer"):
        (tmp_path / "weights").write_text(text)
        keys.append(key_of(settings, MACHINE))
    assert keys[0] != keys[1] == keys[2] != keys[3]


@pytest.mark.parametrize("text", ["", "[]", '{"format": 2, "records": []}', '{"format": 1}'])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    """It is neither believed nor overwritten."""
    path = tmp_path / "capacity.json"
    path.write_text(text)
    for use in (
        lambda: find_record(path, {}),
        lambda: write_record(path, {}, 1, "2026-01-01", []),
    ):
        with pytest.raises(ConfigError, match=r"capacity_file: .*capacity\.json is not what"):
            use()
    assert path.read_text() == text
    with pytest.raises(ConfigError, match="cannot read"):
        find_record(tmp_path, {})


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The folder's name is taken by a file."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(ConfigError, match="capacity_file"):
        write_record(tmp_path / "taken" / "capacity.json", {}, 1, "2026-01-01", [])


def test_this_machine_is_described() -> None:
    """The same each time, with what a person would recognise."""
    machine = this_machine()
    assert machine == this_machine()
    assert machine.cpu
    assert machine.num_cores >= 1
    assert machine.memory_gib >= 1
