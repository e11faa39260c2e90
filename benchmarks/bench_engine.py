"""How many conversations does the engine hold, and what does an hour of one cost it?

Regime: the engine's core with the configured model in this process, one thread an operation, no
sockets; callers who speak bundled questions at the pace of speech, hear the replies out, think for
a moment and go on. First audio is counted from the end of a question, so no wait of a voice
detector is in it and no speculation helps.

1. The gate: conversations held side by side are, word for word and frame for frame, those held
   alone; or nothing is reported. It computes in double precision: in single, rounding decides
   between codes that are as good as equal, and rounding is not the same in company.
2. Sessions against ticks and first audio, in real time, by the search of `parley capacity`, which
   measures each number several times and one session beside it. Then the number found is tried
   anew, and that is reported: what the search chose was chosen for being good.
3. An hour of one call on a clock that skips what a caller would wait: the engine computes all of
   it, at the deadlines of real time. Memory is compared with that after ten minutes, when all that
   is bounded has filled; ticks of the last ten minutes with those of the first.
"""

import argparse
import gc
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.report import ROOT, Row, keep, percentile, print_table, provenance
from model.assemble.spec import StarterSpec
from model.assemble.starter import make_core
from model.assemble.weights import Starter, load_starter
from model.messages import InputTranscript, Output, Pcm, ResponseAudio, ResponseText
from model.turns.engine import TickEngine
from server.capacity.admission import with_max_sessions
from server.capacity.caller import Caller
from server.capacity.command import sweep
from server.capacity.drive import Clock, RealClock, SkippingClock, drive
from server.capacity.measure import make_callers, measure
from server.capacity.search import (
    MAX_FIRST_AUDIO_MS,
    MAX_FIRST_AUDIO_RATIO,
    MOST_REPEATS,
    Trial,
    as_row,
    largest_safe,
    trial_row,
)
from server.config.load import load_settings
from server.config.settings import Settings
from server.engine import core_spec

MINUTE_S = 60.0
HOUR_MINUTES = 60
EDGE_MINUTES = 10  # what counts as the beginning and the end of the hour

_GATE_SESSIONS = 3
_GATE_S = 12.0  # two turns of each
_GATE_ATOL = 1e-3  # of samples in [-1, 1]: rounding, not another code
# Longer than while sessions are counted (0.5 to 1.5 s): there the engine is to be busy, here an
# hour is to be like one.
_HOUR_PAUSES_S = (1.0, 2.5)  # as long as people think
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6

MakeCore = Callable[[int, Clock], TickEngine]


@dataclass(frozen=True, slots=True)
class Hour:
    """What became of an hour's call.

    Attributes:
        num_turns: that were held.
        rss_mb: memory of the process after every ten minutes.
        tick_p95_ms: of every ten minutes.
    """

    num_turns: int
    rss_mb: list[float]
    tick_p95_ms: list[float]

    def row(self) -> Row:
        """Return what is reported."""
        return {
            "num_turns": self.num_turns,
            "memory_growth_mb": round(self.rss_mb[-1] - self.rss_mb[0], 1),
            "tick_p95_ratio": round(self.tick_p95_ms[-1] / self.tick_p95_ms[0], 3),
            "rss_mb": self.rss_mb,
            "tick_p95_ms": self.tick_p95_ms,
        }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "starter.yaml")
    parser.add_argument("--seconds", type=float, default=15.0, help="a number of sessions (15)")
    parser.add_argument("--most", type=int, default=64, help="sessions to try (64)")
    parser.add_argument("--minutes", type=int, default=HOUR_MINUTES, help="of the long call (60)")
    parser.add_argument("--no-save", action="store_true", help="do not keep the result")
    args = parser.parse_args(argv)
    # The first ten minutes and the last ten are compared, so they must not be the same ten.
    if args.minutes < 2 * EDGE_MINUTES or args.minutes % EDGE_MINUTES:
        parser.error(f"--minutes: expected a multiple of {EDGE_MINUTES} from {2 * EDGE_MINUTES}")

    settings = load_settings(args.config)
    if not is_right(_maker(settings, is_exact=True)):
        return 1
    make = _maker(settings)
    trials, frame_ms = sweep(
        lambda number: make(number, RealClock()), RealClock(), args.seconds, args.most, write=_write
    )
    admitted = largest_safe(trials, frame_ms)
    if not admitted:
        print("nothing is reported: not even one session is held in time", file=sys.stderr)
        return 1
    # The search stops at the largest number that looked good, and luck makes some look better than
    # they are. What is reported comes from trials that chose nothing.
    again = _again(make, admitted, args.seconds)
    hour = hold_call(make, args.minutes)

    rows = [as_row(m) for m in (again.alone[0], again.together[0])]
    print()
    print_table([{name: row[name] for name in rows[0] if name != "failure"} for row in rows])
    print()
    print_table([hour.row()])
    low, high = again.interval
    together = again.together
    result = {
        "sessions_admitted": admitted,
        # The median of several trials: one disturbance of the machine does not become the figure.
        "tick_p99_ms": median(m.tick_p99_ms for m in together),
        "first_audio_p50_ms": median(m.first_audio_p50_ms for m in together),
        "first_audio_p95_ms": round(again.first_audio_p95_ms, 1),
        "first_audio_p95_ratio": round(again.ratio, 3),
        "first_audio_p95_ratio_interval": [round(low, 3), round(high, 3)],
        "bar_first_audio_p95_ratio": MAX_FIRST_AUDIO_RATIO,
        "bar_first_audio_p95_ms": MAX_FIRST_AUDIO_MS,
        "missed": round(
            sum(m.num_missed for m in together) / max(1, sum(m.num_frames for m in together)), 4
        ),
        "hour_call": hour.row(),
        "admitted": trial_row(again, frame_ms),
        "search": [trial_row(trial, frame_ms) for trial in trials],
    }
    source = provenance(args.config, ROOT / settings.model.dir)
    keep("engine", source, result, is_saved=not args.no_save)
    return 0


def _maker(settings: Settings, *, is_exact: bool = False) -> MakeCore:
    """Read the weights once; return what makes a core with so many slots on a clock.

    Args:
        settings: of the engine.
        is_exact: whether the language model computes in double precision.
    """
    spec = core_spec(with_max_sessions(settings, 1))
    if not isinstance(spec, StarterSpec):
        raise SystemExit("this benchmark is for a model with a starter's weights")
    config = spec.config
    starter: Starter = load_starter(spec.directory, "dense" if is_exact else config.linears)
    if is_exact:
        # A difference of 1e-16 decides between two codes far more seldom than one of 1e-7. So what
        # differs in company is a mistake and not rounding.
        starter.lm.double()

    def make(num_sessions: int, clock: Clock) -> TickEngine:
        sized = replace(config, max_sessions=num_sessions)
        return make_core(starter, sized, name=spec.name, clock=clock.now_s)

    return make


def is_right(make: MakeCore) -> bool:
    """Say whether conversations are the same side by side and alone; tell what is not."""
    together = held(make, range(_GATE_SESSIONS))
    for number in range(_GATE_SESSIONS):
        # For example, conversations 0, 1 and 2 are held together, then each by itself, with the
        # same questions at the same times. A session that sees a neighbour's memory says something
        # else.
        (expected,) = held(make, [number])
        if not alike(expected, together[number]):
            print(
                f"nothing is measured: conversation {number} is another in company: "
                f"{_words(expected)} alone, {_words(together[number])} side by side",
                file=sys.stderr,
            )
            return False
    print(f"gate: {_GATE_SESSIONS} conversations side by side are those held alone")
    return True


def held(make: MakeCore, numbers: Sequence[int]) -> list[list[Output]]:
    """Hold some of the gate's conversations side by side; returns what each was told."""
    clock = SkippingClock()
    core = make(len(numbers), clock)
    core.warm_up()
    start_s = clock.now_s()
    # All are made, also when one is held alone: who begins when is drawn in this order.
    everyone = make_callers(core.info, _GATE_SESSIONS, start_s)
    callers = [everyone[number] for number in numbers]
    told: dict[str, list[Output]] = defaultdict(list)
    drive(core, callers, clock, start_s + _GATE_S, lambda o: told[o.session_id].append(o))
    return [told[caller.session_id] for caller in callers]


def alike(a: Sequence[Output], b: Sequence[Output]) -> bool:
    """Say whether two conversations are the same, as far as both went."""
    same_words = all(x == y for x, y in zip(_words(a), _words(b), strict=False))
    x, y = _pcm(a), _pcm(b)
    # Both stop at the same time on the clock, but the engine may be a frame further in one of them.
    shared = min(len(x), len(y))
    return same_words and shared > 0 and np.allclose(x[:shared], y[:shared], atol=_GATE_ATOL)


def _words(outputs: Sequence[Output]) -> list[str]:
    return [o.text for o in outputs if isinstance(o, InputTranscript | ResponseText)]


def _pcm(outputs: Sequence[Output]) -> Pcm:
    pieces = [output.pcm for output in outputs if isinstance(output, ResponseAudio)]
    return np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.float32)


def _again(make: MakeCore, num_sessions: int, seconds: float) -> Trial:
    """Try a number of sessions once more, as often as the search would at most."""
    clock, trial = RealClock(), Trial(num_sessions)
    for repeat in range(MOST_REPEATS):
        made = []
        for number in (1, num_sessions):
            core = make(number, clock)
            core.warm_up()
            # Seeds that the search has not had: other pauses, other moments at which callers begin.
            made.append(measure(core, clock, number, seconds, seed=10_000 + 1000 * repeat + number))
        trial = trial.with_pair(made[0], made[1])
    return trial


def hold_call(make: MakeCore, num_minutes: int) -> Hour:
    """Hold one call for that long on its own clock, and look at memory and ticks on the way."""
    clock = SkippingClock()
    core = make(1, clock)
    core.warm_up()
    begin_s = clock.now_s()
    (caller,) = make_callers(core.info, 1, begin_s)
    caller.pauses_s = _HOUR_PAUSES_S
    num_turns = 0
    ticks_ms: list[float] = []
    rss_mb: list[float] = []
    tick_p95_ms: list[float] = []
    for minute in range(1, num_minutes + 1):
        ticks = drive(core, [caller], clock, begin_s + minute * MINUTE_S)
        # Kept for ten minutes and then dropped, since what is measured is whether memory grows.
        ticks_ms += [1000 * tick.seconds for tick in ticks]
        num_turns += _forget(caller)
        if minute % EDGE_MINUTES == 0:
            tick_p95_ms.append(percentile(ticks_ms, 95))
            ticks_ms.clear()
            rss_mb.append(round(_rss_mb(), 1))
            _write(f"call: {minute} minutes, {rss_mb[-1]} MB, p95 tick {tick_p95_ms[-1]} ms\n")
    if caller.failure:
        raise SystemExit(f"the call broke: {caller.failure}")
    return Hour(num_turns, rss_mb, tick_p95_ms)


def _forget(caller: Caller) -> int:
    """Drop what the caller noted, which would grow; returns how many replies it waited for."""
    num_replies = len(caller.waits)
    caller.waits.clear()
    caller.spoken.clear()
    return num_replies


def _rss_mb() -> float:
    # What nobody holds is not what the call costs, whether Python has freed it yet or not.
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_MB


def _write(text: str) -> None:
    print(text, end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
