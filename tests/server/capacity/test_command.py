"""`parley capacity`, with an engine that follows a script."""

import json
from pathlib import Path
from typing import Any

import pytest

from model.scripted.engine import ScriptedCore
from model.scripted.script import parse_script
from server.capacity import command
from server.capacity.admission import session_bound
from server.capacity.drive import SkippingClock
from server.capacity.record import this_machine
from server.capacity.search import largest_safe
from server.config.load import load_settings
from tests.server.capacity.test_drive import SCRIPT


class CrowdedCore(ScriptedCore):
    """An engine that breaks when it holds more than three."""

    def tick(self) -> list[object]:  # type: ignore[override]  # none is made here
        """Fail everybody."""
        if self.metrics.sessions > 3:
            return list(self.fail_all("too crowded"))
        return list(super().tick())


def test_the_sweep_makes_an_engine_for_each_number_and_tells_of_each() -> None:
    """A line for each time, with one session beside it, and one for what is said of the number."""
    clock = SkippingClock(lambda: 0.0)
    made: list[Any] = []
    text: list[str] = []

    def make_core(num_sessions: int) -> ScriptedCore:
        made.append(num_sessions)
        script = parse_script(SCRIPT, "test")
        return CrowdedCore(script, max_sessions=num_sessions, ahead_ms=500, clock=clock.now_s)

    trials, frame_ms = command.sweep(make_core, clock, 8.0, 256, write=text.append)
    assert [t.sessions for t in trials] == [1, 2, 4, 3]
    assert made == [1, 1, 1, 1, 2, 1, 2, 1, 2, 1, 4, 1, 3, 1, 3, 1, 3]
    assert largest_safe(trials, frame_ms) == 3
    assert [line.split()[0] for line in text] == ["sessions", *"11112222443333"]
    assert "too many: a session was lost: too crowded" in text[10]
    assert text[-1].split()[1] == "held;"


def test_the_result_is_kept_for_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last line is JSON, and a server with the same settings admits that many."""
    clock = SkippingClock(lambda: 0.0)
    script = tmp_path / "script.yaml"
    script.write_text(SCRIPT)
    config = tmp_path / "config.yaml"
    config.write_text(f"model: {{script: {script}}}\nserver: {{capacity_file: {tmp_path}/c.json}}")
    settings = load_settings(config, env={})

    class Spec:
        """Build the engine on the test's clock."""

        def build(self) -> ScriptedCore:
            """Return it."""
            parsed = parse_script(SCRIPT, "test")
            return ScriptedCore(parsed, max_sessions=9, ahead_ms=500, clock=clock.now_s)

    monkeypatch.setattr(command, "RealClock", lambda: clock)
    monkeypatch.setattr(command, "core_spec", lambda _: Spec())
    assert command.run_capacity(settings, seconds=8.0, max_sessions=2) == 2
    last = capsys.readouterr().out.splitlines()[-1]
    assert json.loads(last)["capacity"]["sessions"] == 2
    assert session_bound(settings, this_machine()).sessions == 2
