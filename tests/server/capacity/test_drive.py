"""Callers and an engine's core on a clock of their own."""

import pytest

from model.messages import Output, ResponseDone
from model.scripted.engine import ScriptedCore
from model.scripted.script import parse_script
from server.capacity.drive import RealClock, SkippingClock, drive
from server.capacity.measure import make_callers

SCRIPT = """
pace: {first_output_ms: 40, write_ms: 0, words_per_minute: 150, real_time_factor: 0.1}
reply: [{say: hello there}]
"""


def test_a_skipping_clock_runs_with_work_and_jumps_over_waiting() -> None:
    """It never goes back, and does not wait for what is over."""
    worked_s = 5.0
    clock = SkippingClock(lambda: worked_s)
    assert clock.now_s() == 5.0
    clock.sleep_until(7.0)
    worked_s += 0.5
    assert clock.now_s() == 7.5
    clock.sleep_until(7.0)
    assert clock.now_s() == 7.5


def test_the_real_clock_is_the_engines() -> None:
    """It does not wait for what is over either."""
    before_s = RealClock.now_s()
    RealClock.sleep_until(before_s - 1.0)
    assert RealClock.now_s() >= before_s


def test_conversations_go_on_where_they_were() -> None:
    """In one drive or in two, callers are answered turn after turn, all at their own times."""
    told: list[list[Output]] = []
    for stops_s in ((20.0,), (7.3, 20.0)):
        clock = SkippingClock(lambda: 0.0)
        core = ScriptedCore(
            parse_script(SCRIPT, "test"), max_sessions=3, ahead_ms=500, clock=clock.now_s
        )
        callers = make_callers(core.info, 3, 0.0)
        told.append([])
        for stop_s in stops_s:
            drive(core, callers, clock, stop_s, told[-1].append)
            assert clock.now_s() == pytest.approx(stop_s)
        assert all(len(caller.waits) >= 3 for caller in callers)
        assert not any(piece.is_late for caller in callers for piece in caller.spoken)
    # The delay of the first output, and a tenth of a frame for making the first frame.
    assert {round(wait.seconds, 3) for caller in callers for wait in caller.waits} == {0.048}
    assert len([o for o in told[0] if isinstance(o, ResponseDone)]) >= 9
    assert [type(output) for output in told[0]] == [type(output) for output in told[1]]
