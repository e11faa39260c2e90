"""How many sessions are admitted, and why."""

from pathlib import Path

import pytest

from server.capacity.admission import session_bound, with_bounds, with_max_sessions
from server.capacity.record import key_of, write_record
from server.config.models import EngineSettings, ServedSettings
from server.config.settings import Settings
from server.engine import on_device
from server.errors import ConfigError
from tests.server.capacity.test_record import MACHINE


def settings(path: Path, **engine: int) -> Settings:
    """Return settings with a file of measurements."""
    return Settings.model_validate({"server": {"capacity_file": str(path)}, "engine": engine})


def test_what_is_set_wins_then_what_was_measured_then_the_default(tmp_path: Path) -> None:
    """The reason says which it was, and what to do."""
    path = tmp_path / "capacity.json"
    default = EngineSettings().max_sessions
    bound = session_bound(settings(path), MACHINE)
    assert bound.sessions == default
    assert "there is no" in bound.reason
    assert "parley capacity" in bound.reason

    write_record(path, key_of(settings(path), MACHINE), 11, "2026-01-01", [])
    bound = session_bound(settings(path), MACHINE)
    assert bound.sessions == 11
    assert "measured on 2026-01-01" in bound.reason

    # Even the default's own number, if it is set.
    bound = session_bound(settings(path, max_sessions=default), MACHINE)
    assert (bound.sessions, bound.reason) == (default, "engine.max_sessions is set")


def test_a_stale_measurement_is_not_believed(tmp_path: Path) -> None:
    """What is another's is as good as nothing, and the reason says so."""
    path = tmp_path / "capacity.json"
    write_record(path, key_of(settings(path), MACHINE), 11, "2026-01-01", [])
    bound = session_bound(settings(path, num_threads=2), MACHINE)
    assert bound.sessions == EngineSettings().max_sessions
    assert "nothing for this model, configuration and machine" in bound.reason


def test_a_broken_file_stops_the_server(tmp_path: Path) -> None:
    """It is told of at the start, not found out by the callers."""
    path = tmp_path / "capacity.json"
    path.write_text("{")
    with pytest.raises(ConfigError, match="capacity_file"):
        session_bound(settings(path), MACHINE)


def test_slots_are_made_for_what_is_admitted() -> None:
    """Nothing else changes, and the given settings stay."""
    before = settings(Path("f"))
    after = with_max_sessions(before, 3)
    assert after.engine.max_sessions == 3
    assert with_max_sessions(after, before.engine.max_sessions).model_dump() == before.model_dump()


def test_each_of_several_models_has_a_bound_of_its_own(tmp_path: Path) -> None:
    """What is set, or what was measured for it, on the first of its devices."""
    given = ServedSettings(engine=EngineSettings(max_sessions=3))
    measured = ServedSettings(dir=Path("models/large"), engine=EngineSettings(devices=("x:1", "x")))
    alone = Settings(
        models={"given": given, "measured": measured}, server=settings(tmp_path).server
    )
    first, second = alone.each_model
    on_one = on_device(second, "x:1")
    path = tmp_path / "capacity.json"
    write_record(path, key_of(on_one, MACHINE), 11, "2026-01-01", [])
    assert session_bound(first, MACHINE).sessions == 3
    server = alone.server.model_copy(update={"capacity_file": path})
    second = second.model_copy(update={"server": server})
    assert session_bound(second, MACHINE).sessions == 11
    bounded = with_bounds(alone, {"given": 3, "measured": 11})
    assert [each.engine.max_sessions for each in bounded.each_model] == [3, 11]
    assert bounded.each_model[1].engine.places == ("x:1", "x")
    only = with_bounds(first, {"given": 5})
    assert only.each_model[0].engine.max_sessions == 5
