"""Limits against what there is."""

import datetime as dt
from pathlib import Path

import pytest

from server.config.models import EngineSettings
from server.config.server import ServerSettings
from server.config.settings import Settings
from server.doctor.host import Host, limit_in, this_host
from server.doctor.resources import (
    check_clock,
    check_descriptors,
    check_disk,
    check_memory,
    check_shared_memory,
    newest_file,
    num_places,
    session_bytes,
    written_folders,
)

NOW = dt.datetime(2026, 11, 30, tzinfo=dt.UTC)
GB = 1_000_000_000


def _host(
    *, memory: int = 16 * GB, descriptors: int = 20_000, now: dt.datetime = NOW,
    is_clock_kept: bool | None = True,
) -> Host:  # fmt: skip
    return Host(memory, descriptors, 1_000, now, is_clock_kept)


@pytest.mark.parametrize(
    ("memory", "status"), [(16 * GB, "ok"), (3 * GB, "warning"), (2 * GB, "error")]
)
def test_memory(memory: int, status: str) -> None:
    """Room for all at their limits; for the model only; not even that."""
    settings = Settings()
    (found,) = check_memory(settings, 16, _host(memory=memory), 1_500_000_000)
    assert found.status == status
    assert 16 * session_bytes(settings) > GB
    more = check_memory(settings, 16, _host(memory=3 * GB), 1_500_000_000, num_engines=3)
    assert [each.status for each in more] == ["error"], "each engine is a process with PyTorch"


def test_places_of_several_engines() -> None:
    """Of every model, on each of its devices."""
    assert num_places(Settings(engine=EngineSettings(max_sessions=5))) == 5
    models = {
        "a": {"engine": {"max_sessions": 3}},
        "b": {"engine": {"max_sessions": 8, "devices": ["cuda:0", "cuda:1"]}},
    }
    assert num_places(Settings.model_validate({"models": models})) == 3 + 2 * 8


def test_less_sound_is_less_memory() -> None:
    """What the warning tells to lower does lower it."""
    less = Settings(server=ServerSettings(max_waiting_audio_s=60))
    assert session_bytes(Settings()) - session_bytes(less) == 540 * 64_000


def test_descriptors() -> None:
    """For sessions and the connections beside them."""
    for have, status in ((20_000, "ok"), (256, "warning")):
        (found,) = check_descriptors(Settings(), 16, _host(descriptors=have))
        assert found.status == status


def test_disk(tmp_path: Path) -> None:
    """A folder that is not there yet counts as the one that it will be in."""
    (found,) = check_disk([("something", tmp_path / "not" / "yet")])
    assert (found.check, "something" in found.found) == ("disk", True)
    who = [name for name, _ in written_folders(Settings())]
    assert who == ["server.capacity_file", "temporary files"]
    billed = Settings.model_validate({"usage": {"ledger": tmp_path / "bills" / "usage.jsonl"}})
    assert ("usage.ledger", tmp_path / "bills") in [*written_folders(billed)]


def test_shared_memory(tmp_path: Path) -> None:
    """A folder that can be written, and one that is not there."""
    for folder, status in ((tmp_path, "ok"), (tmp_path / "none", "error")):
        (found,) = check_shared_memory(folder)
        assert found.status == status


def test_the_clock() -> None:
    """Before our own files were written, kept by nothing, unknown, and right."""
    old = _host(now=dt.datetime(1970, 1, 2, tzinfo=dt.UTC))
    cases = (
        (old, "error"),
        (_host(is_clock_kept=False), "warning"),
        (_host(is_clock_kept=None), "ok"),
        (_host(), "ok"),
    )
    for host, status in cases:
        (found,) = check_clock(host, NOW - dt.timedelta(days=3))
        assert found.status == status
    assert newest_file() < dt.datetime.now(dt.UTC) + dt.timedelta(days=1)


def test_limits_of_containers() -> None:
    """As both versions of control groups write them, none included."""
    assert limit_in("2147483648\n") == 2_147_483_648
    assert limit_in("max\n") is None
    assert limit_in("9223372036854771712\n") is None


def test_this_machine() -> None:
    """It has something of everything."""
    host = this_host()
    assert host.memory_bytes > 1 << 28
    assert host.num_descriptors > 0
