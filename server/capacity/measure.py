"""Measure an engine with so many callers."""

import math
from collections.abc import Sequence

import numpy as np

from model.engine.core import EngineCore
from model.files.sound import read_sound
from model.messages import EngineInfo, Pcm
from server.capacity.caller import Caller
from server.capacity.drive import Clock, drive
from server.capacity.search import Measurement
from server.names import ROOT

QUESTIONS = ROOT / "server" / "capacity" / "questions"
STAGGER_S = 4.0
"""Callers come one by one for as long as this; what happens until then is not measured."""


def load_questions(rate_hz: int) -> list[Pcm]:
    """Return what callers say, float32 [samples] each."""
    return [read_sound(path, rate_hz) for path in sorted(QUESTIONS.glob("*.wav"))]


def measure(
    core: EngineCore, clock: Clock, num_sessions: int, seconds: float, *, seed: int = 0
) -> Measurement:
    """Let callers who began at different times talk, be heard and be answered side by side.

    Args:
        core: warm, without sessions; goes by the same clock. Its sessions are closed afterwards.
        clock: tells the time.
        num_sessions: callers.
        seconds: for which they are watched, once all of them are there.
        seed: decides who begins when, and how long they think.
    """
    start_s = clock.now_s()
    callers = make_callers(core.info, num_sessions, start_s, seed=seed)
    # While callers still come there are fewer of them than are to be measured.
    from_s = start_s + STAGGER_S
    drive(core, callers, clock, from_s)
    # Two kinds of misses: a user's frame that was heard too late (the engine counts those), and a
    # reply's that came when the caller had nothing left to hear.
    late_before, frames_before = core.metrics.frames_heard_late, _frames(core)
    ticks = drive(core, callers, clock, from_s + seconds)
    ticks_ms = [1000 * tick.seconds for tick in ticks]
    waits_ms = _waits_ms(callers, from_s, clock.now_s())
    num_late = sum(piece.is_late for c in callers for piece in c.spoken if piece.at_s >= from_s)
    measurement = Measurement(
        sessions=num_sessions,
        seconds=seconds,
        num_ticks=len(ticks),
        tick_p50_ms=percentile(ticks_ms, 50),
        tick_p95_ms=percentile(ticks_ms, 95),
        tick_p99_ms=percentile(ticks_ms, 99),
        num_replies=len(waits_ms),
        first_audio_p50_ms=percentile(waits_ms, 50),
        first_audio_p95_ms=percentile(waits_ms, 95),
        num_frames=_frames(core) - frames_before,
        num_missed=num_late + core.metrics.frames_heard_late - late_before,
        failure=next((caller.failure for caller in callers if caller.failure), ""),
        waits_ms=tuple(waits_ms),
    )
    for caller in callers:
        core.apply(caller.leave())
    return measurement


def make_callers(
    info: EngineInfo, num_sessions: int, start_s: float, *, seed: int = 0
) -> list[Caller]:
    """Return callers who begin at different times within `STAGGER_S`, each with another question.

    Args:
        info: of the engine.
        num_sessions: callers.
        start_s: when the first may begin.
        seed: decides who begins when, and how long they think.
    """
    questions = load_questions(info.sample_rate_hz)
    rng = np.random.default_rng(seed)
    return [
        Caller(
            f"caller-{number}",
            info,
            questions[number % len(questions) :] + questions[: number % len(questions)],
            # All at once would be the worst case and never happens; evenly spaced would be the
            # best.
            start_s + float(rng.uniform(0, STAGGER_S)),
            seed=seed + number,
        )
        for number in range(num_sessions)
    ]


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile to a tenth; infinity for no values."""
    return round(float(np.percentile(values, percent)), 1) if values else math.inf


def _waits_ms(callers: Sequence[Caller], from_s: float, now_s: float) -> list[float]:
    """Return all waits for replies that were asked for since then, those still going on too."""
    waits = [1000 * w.seconds for c in callers for w in c.waits if w.asked_s >= from_s]
    since_s = [caller.waiting_since_s for caller in callers]
    # What has waited for less than a second may still be answered in time, and says nothing.
    return waits + [1000 * (now_s - s) for s in since_s if s is not None and now_s - s > 1.0]


def _frames(core: EngineCore) -> int:
    return core.metrics.frames_heard + core.metrics.frames_spoken
