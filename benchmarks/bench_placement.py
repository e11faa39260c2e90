"""What does it cost that the engine has a process of its own?

Two figures for each placement, taken in turns so that whatever else the machine does meets both:

- ready: from the command `parley serve` to `/readyz` saying yes, with the weights of `--config`;
- first audio: from handing `Respond` to the engine to its first sound in the event loop, with a
  scripted engine that answers at once, so that hardly anything but the way there and back is in it.

The correctness gate is part of both: a server that does not come up, or a turn without sound and
an end, stops the measurement.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import ROOT, Row, keep, percentile, print_table, provenance
from model.assemble.spec import ScriptedSpec
from model.engine.core import CoreSpec
from model.engine.local import LocalEngine
from model.engine.process import ProcessEngine
from model.messages import (
    Engine,
    News,
    Open,
    Output,
    Respond,
    ResponseAudio,
    ResponseDone,
)
from server.client.local import local_server
from server.config.load import load_settings
from server.session.link import EngineLink

PLACEMENTS = ("thread", "process")

_SCRIPT = "{pace: {first_output_ms: 0}, reply: [{say: hi}]}"
_TIMEOUT_S = 10.0
_PAUSE_S = 0.01  # longer than a reply takes: every turn finds the engine waiting


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "starter.yaml")
    parser.add_argument("--starts", type=int, default=5, help="of a server, each placement (5)")
    parser.add_argument("--turns", type=int, default=500, help="each placement (500)")
    parser.add_argument("--no-save", action="store_true", help="do not keep the result")
    args = parser.parse_args(argv)

    # Before servers are started and stopped, which leaves the machine busy for a while.
    first_ms = asyncio.run(measure_first_audio(args.turns))
    ready_s: dict[str, list[float]] = {placement: [] for placement in PLACEMENTS}
    for _ in range(args.starts):
        # In turns and not five of each: a disk that is cold at first is cold for both.
        for placement in PLACEMENTS:
            ready_s[placement].append(_started(args.config, placement))
    rows = [_row(placement, ready_s[placement], first_ms[placement]) for placement in PLACEMENTS]
    print_table(rows)
    source = provenance(args.config, ROOT / load_settings(args.config).model.dir)
    keep("placement", source, {"placements": rows}, is_saved=not args.no_save)
    return 0


def _started(config: Path, placement: str) -> float:
    """Start a server, stop it, and return how long it took until it was ready."""
    began_s = time.monotonic()
    with local_server(config, [f"engine.placement={placement}"]):
        return time.monotonic() - began_s


async def measure_first_audio(num_turns: int) -> dict[str, list[float]]:
    """Return the times to the first sound in milliseconds, by placement."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "script.yaml"
        script.write_text(_SCRIPT)
        # Nothing is paced: the first sound is made as soon as the command is there.
        spec = ScriptedSpec(script, max_sessions=1, ahead_ms=60_000)
        callers = {placement: _Caller(_engine(placement, spec)) for placement in PLACEMENTS}
        times: dict[str, list[float]] = {placement: [] for placement in PLACEMENTS}
        try:
            for caller in callers.values():
                await caller.start()
            for _ in range(num_turns):
                for placement, caller in callers.items():
                    times[placement].append(await caller.first_audio_ms())
                    # A thread that has just worked is still awake. What a caller meets is one that
                    # sleeps.
                    await asyncio.sleep(_PAUSE_S)
        finally:
            for caller in callers.values():
                await caller.stop()
    return times


def _engine(placement: str, spec: CoreSpec) -> Engine:
    return ProcessEngine(spec) if placement == "process" else LocalEngine(spec.build())


class _Caller:
    """Ask an engine for replies, in one session."""

    def __init__(self, engine: Engine) -> None:
        self._link = EngineLink(engine)
        self._turn = 0
        self._first_s: list[float] = []
        self._is_done = asyncio.Event()

    async def start(self) -> None:
        """Start the engine and open a session in it."""
        await self._link.start()
        self._link.join("s", self._take)
        self._link.submit(Open("s", self._link.info.voices[0]))

    async def stop(self) -> None:
        """Stop the engine."""
        await self._link.stop()

    async def first_audio_ms(self) -> float:
        """Ask for a reply, hear it out, and return how long its first sound took."""
        self._turn += 1
        self._first_s.clear()
        self._is_done.clear()
        # Both ends are in this process, on one clock, whatever the engine's process has.
        asked_s = time.perf_counter()
        self._link.submit(Respond("s", self._turn, f"a{self._turn}"))
        async with asyncio.timeout(_TIMEOUT_S):
            await self._is_done.wait()
        assert self._first_s, "a spoken reply has sound"
        return (self._first_s[0] - asked_s) * 1000

    def _take(self, output: Output | News) -> None:
        match output:
            case ResponseAudio():
                self._first_s.append(time.perf_counter())
            case ResponseDone():
                self._is_done.set()
            case _:
                pass


def _row(placement: str, ready_s: Sequence[float], first_ms: Sequence[float]) -> Row:
    return {
        "placement": placement,
        "starts": len(ready_s),
        "ready_p50_s": percentile(ready_s, 50),
        "ready_min_s": percentile(ready_s, 0),
        "turns": len(first_ms),
        "first_audio_p50_ms": _percentile(first_ms, 50),
        "first_audio_p95_ms": _percentile(first_ms, 95),
        "first_audio_p99_ms": _percentile(first_ms, 99),
    }


def _percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile of times well below a millisecond, in microseconds' steps."""
    # `percentile` rounds to a tenth: 0.1234 ms becomes 12.3 there and 0.123 here.
    return round(percentile([value * 100 for value in values], percent) / 100, 3)


if __name__ == "__main__":
    sys.exit(main())
