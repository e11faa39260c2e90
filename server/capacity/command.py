"""Do what `parley capacity` does: sweep, print, keep."""

import datetime as dt
import json
from collections.abc import Callable
from typing import TypeAlias

from model.engine.core import EngineCore
from server.capacity.admission import with_max_sessions
from server.capacity.drive import Clock, RealClock
from server.capacity.measure import measure
from server.capacity.record import find_record, key_of, this_machine, write_record
from server.capacity.search import (
    Measurement,
    Trial,
    is_settled,
    largest_safe,
    next_sessions,
    problem,
    trial_row,
)
from server.config.settings import Settings
from server.engine import core_spec, on_device
from server.names import ROOT

Write: TypeAlias = Callable[[str], object]
MakeCore: TypeAlias = Callable[[int], EngineCore]

_HEADER = "sessions   tick p50    p95    p99   first audio p50    p95   of one   missed   replies\n"


def run_capacity(settings: Settings, *, seconds: float, max_sessions: int) -> int:
    """Measure the engine of the only model, on the first of its devices.

    Prints, keeps, and returns the largest number of sessions that is safe; 0 for none.

    Args:
        settings: of the engine, and where to keep the result.
        seconds: for which each number of sessions is watched.
        max_sessions: most to try.

    Raises:
        ConfigError: the result cannot be kept.
        ParleyError: the engine cannot be had.
    """

    # A core of its own for each trial: nothing that one leaves behind in caches or memory helps the
    # next.
    def make_core(num_sessions: int) -> EngineCore:
        first = on_device(settings, settings.engine.places[0])
        return core_spec(with_max_sessions(first, num_sessions)).build()

    path = ROOT / settings.server.capacity_file
    machine = this_machine()
    key = key_of(settings, machine)
    find_record(path, key)  # a broken file is told of before minutes are spent
    print(f"{settings.model.name} on {machine.cpu}, {machine.num_cores} cores", flush=True)
    trials, frame_ms = sweep(make_core, RealClock(), seconds, max_sessions, write=_print)
    sessions = largest_safe(trials, frame_ms)
    if sessions:
        date = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        # All that was measured is kept beside the answer, so that a doubtful one can be looked
        # into.
        write_record(path, key, sessions, date, [m for t in trials for m in t.together])
        print(f"\n{sessions} sessions are safe: kept in {path}")
        if "max_sessions" in settings.engine.model_fields_set:
            print(
                f"but engine.max_sessions is set to {settings.engine.max_sessions}, and the server "
                "goes by that"
            )
    else:
        print("\nnot even one session is safe: nothing is kept")
    rows = [trial_row(trial, frame_ms) for trial in trials]
    found = {"model": settings.model.name, "sessions": sessions, "measured": rows}
    print(json.dumps({"capacity": found}))
    return sessions


def sweep(
    make_core: MakeCore, clock: Clock, seconds: float, max_sessions: int, *, write: Write
) -> tuple[list[Trial], int]:
    """Try one number of sessions after the other until the answer is known.

    Args:
        make_core: makes an engine's core with so many slots, not warm, that goes by `clock`.
        clock: tells the time.
        seconds: for which each number is watched every time.
        max_sessions: most to try.
        write: prints text without a line end of its own.

    Returns:
        All trials in order, that of one session first; and a frame's length in milliseconds.
    """
    trials: list[Trial] = []
    frame_ms = 0
    write(_HEADER)

    def watch(number: int, repeat: int) -> Measurement:
        nonlocal frame_ms
        core = make_core(number)
        core.warm_up()
        frame_ms = core.info.frame_ms
        return measure(core, clock, number, seconds, seed=1000 * repeat + number)

    while (number := next_sessions(trials, frame_ms, max_sessions)) is not None:
        trial = Trial(number)
        while not trial.together or not is_settled(trial, frame_ms):
            repeat = len(trial.together)
            # One session right before so many: when the machine slows down for a minute, both are
            # slow, and their ratio is what it was.
            alone = watch(1, repeat)
            together = alone if number == 1 else watch(number, repeat)
            trial = trial.with_pair(alone, together)
            write(line(together, alone))
        trials.append(trial)
        write(verdict(trial, problem(trial, frame_ms)))
    return trials, frame_ms


def line(m: Measurement, alone: Measurement) -> str:
    """Return a measurement as a line of the table, with the one session beside it."""
    return (
        f"{m.sessions:8}   {m.tick_p50_ms:8.1f} {m.tick_p95_ms:6.1f} {m.tick_p99_ms:6.1f}   "
        f"{m.first_audio_p50_ms:15.1f} {m.first_audio_p95_ms:6.1f} {alone.first_audio_p95_ms:8.1f}"
        f"   {m.missed:6.2%}   {m.num_replies:7}\n"
    )


def verdict(trial: Trial, trouble: str) -> str:
    """Return what is said of a number of sessions, as a line of the table."""
    low, high = trial.interval
    held = f"too many: {trouble}" if trouble else "held"
    return (
        f"{trial.sessions:8}   {held}; first audio {trial.ratio:.2f} x that of one "
        f"({low:.2f} to {high:.2f}), p95 {trial.first_audio_p95_ms:.0f} ms, "
        f"{len(trial.together)} times\n"
    )


def _print(text: str) -> None:
    print(text, end="", flush=True)
