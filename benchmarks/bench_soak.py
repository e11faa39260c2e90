"""Does a server stay as it was, through hours of calls, killed engines and bad peers?

Regime: one real server with two models, each in processes of its own; one of them has two engines.
Callers take every place: they speak (by push to talk and by voice detection), type, stop replies,
call functions, hang up and call again, without waiting for time to pass. So an hour of talk takes
minutes; how many is what the machine gives. Beside them are bad peers: some vanish in a reply, some
read nothing, some answer no ping, some send rubbish, some have no key. And from time to time an
engine of the first model is killed, the one that has run for longer; that of the second is left
alone, so that its memory can be followed.

Nothing may be lost: every reply comes and is the right one, that of the caller's own conversation,
also when its engine was killed; what callers were told of their use is what the ledger has, to the
token; every engine that was killed comes back; places, descriptors and memory are afterwards what
they were. Memory, of the gateway and of the engine that is left alone, is compared between the
second and the last quarter of the run, and told minute by minute of talk.

Prints a table, then one JSON line. The exit code is 1 if anything was lost.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import signal
import statistics
import string
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.report import ROOT, Row, keep, print_table, provenance
from benchmarks.soak_callers import Caller, Told, Trouble, script
from model.engine.child import NAME
from server.session.ledger import read_ledger
from server.transport.api_keys import hashed
from server.usage import add_up

GOOD, BAD = "sk-of-the-good-ones-1", "sk-of-the-bad-ones-01"
_START_S, _END_S = 180.0, 120.0
_NUM_ENGINES = 3
# Memory that goes up by less is what an allocator keeps, and no leak.
MAX_GROWTH = 1.10
_KEPT_BYTES = 8 << 20
_PAGE = os.sysconf("SC_PAGE_SIZE")


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print and keep."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hours", type=float, default=1.0, help="of talk, of each caller (1)")
    parser.add_argument("--seconds", type=float, default=3_600, help="at most, by the clock (3600)")
    parser.add_argument("--callers", type=int, default=8, help="of each of the two models (8)")
    # In turn: an engine that dies within a minute of its start again and again is given up.
    parser.add_argument("--kill-s", type=float, default=45.0, help="from a kill to the next (45)")
    parser.add_argument("--no-save", action="store_true", help="do not keep the result")
    args = parser.parse_args(argv)
    result = asyncio.run(_soaked(args))
    print_table(
        [{key: value for key, value in result.items() if not isinstance(value, list | dict)}]
    )
    keep("soak", provenance(ROOT / "configs" / "scripted.yaml"), result, is_saved=not args.no_save)
    return 1 if result["lost"] else 0


@dataclass(slots=True)
class Watched:
    """What was seen of the server's processes, once a second.

    Attributes:
        memory: of the gateway, resident, in bytes.
        engine_memory: the same of the engine that is left alone.
        descriptors: that the gateway has open.
        minutes: of talk that each caller had had by then.
        kills: engines that were killed.
    """

    memory: list[int] = field(default_factory=list)
    engine_memory: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    minutes: list[float] = field(default_factory=list)
    kills: int = 0

    @property
    def memories(self) -> Mapping[str, list[int]]:
        """Return the memory of each process that is followed, by its name."""
        return {"gateway": self.memory, "engine": self.engine_memory}


async def _soaked(args: argparse.Namespace) -> Row:
    told, watched, is_over = Told(), Watched(), asyncio.Event()
    with tempfile.TemporaryDirectory() as folder:
        ledger = Path(folder) / "usage.jsonl"
        num_bad = max(2, args.callers // 4)
        async with _server(Path(folder), args.callers, num_bad, ledger) as (process, port):
            base = f"ws://127.0.0.1:{port}/v1/realtime?model="
            callers = [
                Caller(f"{base}{model}", GOOD, _name(number), told, number)
                for number, model in enumerate(["one", "two"] * args.callers)
            ]
            bad = [Trouble(f"{base}one", BAD, number) for number in range(num_bad)]
            # One of each first: what is loaded when it is needed is loaded now.
            await _warm_up(base)
            idle = await _settled(port, process.pid)
            steady = _engines(process.pid)[-1]  # they were made in the order of their models
            start_s = time.monotonic()
            async with asyncio.TaskGroup() as group:
                for caller in callers:
                    group.create_task(caller.run(is_over))
                for peer in bad:
                    group.create_task(peer.run(is_over))
                group.create_task(_kill(process.pid, port, steady, args.kill_s, watched, is_over))
                group.create_task(_watch(process.pid, steady, watched, callers, told, is_over))
                await _until_over(args, told, process)
                is_over.set()
            took_s = time.monotonic() - start_s
            at_end = await _settled(port, process.pid)
            await _ledger_rest()
        lost = [*told.lost, *_ledger_faults(ledger, told), *_faults(watched, idle, at_end)]
    return _result(args, told, watched, bad, took_s, (idle, at_end), lost)


def _result(
    args: argparse.Namespace,
    told: Told,
    watched: Watched,
    bad: Sequence[Trouble],
    took_s: float,
    states: tuple[Row, Row],
    lost: list[str],
) -> Row:
    troubles: dict[str, int] = {}
    for each in bad:
        for kind, number in each.done.items():
            troubles[kind] = troubles.get(kind, 0) + number
    talk_h = (told.heard_s + told.said_s) / 3600
    return {
        "took_s": round(took_s, 1),
        "callers": 2 * args.callers,
        "talk_h": round(talk_h, 2),
        "talk_h_each": round(talk_h / (2 * args.callers), 3),
        "calls": told.calls,
        "replies": told.replies,
        "cut": told.cut,
        "failed_and_repeated": told.failed,
        "unheard": told.unheard,
        "waited": told.waited,
        "kills": watched.kills,
        "moves": states[1]["moves"],
        "trouble": troubles,
        "lost": lost,
        "memory_quarters_mb": {
            name: [_mb(each) for each in _quarters(values)]
            for name, values in watched.memories.items()
        },
        "memory_max_mb": {name: _mb(max(values)) for name, values in watched.memories.items()},
        "memory_by_minute_mb": {
            name: [_mb(each) for each in _by_minute(watched.minutes, values)]
            for name, values in watched.memories.items()
        },
        "descriptors_idle": [states[0]["descriptors"], states[1]["descriptors"]],
        "descriptors_max": max(watched.descriptors),
    }


# The server.


@asynccontextmanager
async def _server(
    folder: Path, num_callers: int, num_bad: int, ledger: Path
) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    (folder / "script.yaml").write_text(script())
    half = (num_callers + num_bad + 1) // 2
    model = {"script": str(folder / "script.yaml")}
    # Without a bound on how far ahead of its listener a reply is made, it takes no time.
    engine = {"ahead_ms": 3_600_000}
    config = {
        "server": {
            "port": 0,
            "keys": [
                {"name": "good", "sha256": hashed(GOOD)},
                {"name": "bad", "sha256": hashed(BAD), "limits": {"max_sessions": num_bad}},
            ],
            "max_backlog_events": 4_096,
            "drain_s": 0,
        },
        "models": {
            "one": {**model, "engine": {**engine, "devices": ["cpu", "cpu"], "max_sessions": half}},
            "two": {**model, "engine": {**engine, "max_sessions": num_callers}},
        },
        "webrtc": {"enabled": False},
        "usage": {"ledger": str(ledger), "flush_s": 1.0},
    }
    path, log = folder / "server.yaml", folder / "log.txt"
    path.write_text(json.dumps(config))  # JSON is YAML
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "server.cli", "serve", "--config", str(path)),
            cwd=ROOT,
            stdout=file,
            stderr=file,
        )
    try:
        async with asyncio.timeout(_START_S):
            while (found := re.search(r"ws://127\.0\.0\.1:(\d+)", log.read_text())) is None:
                if process.returncode is not None:
                    raise RuntimeError(log.read_text()[-2_000:])
                await asyncio.sleep(0.1)
            while not await asyncio.to_thread(_ask, int(found[1]), "/readyz"):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.1)
        yield process, int(found[1])
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(_END_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def _ask(port: int, path: str) -> str:
    """Return what the server says; empty if it does not answer."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", headers={"authorization": f"Bearer {GOOD}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - our own
            text: str = response.read().decode()
            return text
    except OSError:
        return ""


def _total(text: str, name: str) -> float:
    """Add up a metric over all labels."""
    found = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
    return sum(map(float, found))


async def _settled(port: int, pid: int) -> Row:
    """Wait until nothing is open and all engines serve; returns what the server says then."""
    with contextlib.suppress(TimeoutError):  # what it says tells why
        async with asyncio.timeout(_END_S):
            while True:
                text = await asyncio.to_thread(_ask, port, "/metrics")
                up = _total(text, "parley_engine_up")
                if up == _NUM_ENGINES and not _total(text, "parley_sessions"):
                    break
                await asyncio.sleep(0.5)
    # Engines report twice a second, and keep-alive connections are dropped after some.
    await asyncio.sleep(8.0)
    text = await asyncio.to_thread(_ask, port, "/metrics")
    # On a busy machine the connection that asked is closed a moment later.
    descriptors = []
    for _ in range(10):
        descriptors.append(_num_descriptors(pid))
        await asyncio.sleep(0.2)
    return {
        "descriptors": min(descriptors),
        "up": _total(text, "parley_engine_up"),
        "sessions": _total(text, "parley_sessions"),
        "in_engines": _total(text, "parley_engine_sessions"),
        "losses": _total(text, "parley_engine_losses_total"),
        "restarts": _total(text, "parley_engine_restarts_total"),
        "moves": _total(text, "parley_session_moves_total"),
        "server_errors": _total(text, r'parley_errors_total{type="server_error"}'),
    }


# What happens meanwhile.


async def _warm_up(base: str) -> None:
    told, is_over = Told(), asyncio.Event()
    for model in ("one", "two"):
        await Caller(f"{base}{model}", BAD, "warm", told, 0).once(is_over)
    if told.lost:
        raise RuntimeError(told.lost[0])


async def _until_over(
    args: argparse.Namespace, told: Told, process: asyncio.subprocess.Process
) -> None:
    deadline_s = time.monotonic() + args.seconds
    while time.monotonic() < deadline_s:
        await asyncio.sleep(1.0)
        talk_h = (told.heard_s + told.said_s) / 3600 / (2 * args.callers)
        if talk_h >= args.hours:
            return
        if process.returncode is not None:
            told.lost.append(f"the server ended with {process.returncode}")
            return


async def _kill(
    pid: int, port: int, steady: int, every_s: float, watched: Watched, is_over: asyncio.Event
) -> None:
    while not is_over.is_set():
        try:
            async with asyncio.timeout(every_s):
                await is_over.wait()
        except TimeoutError:
            text = await asyncio.to_thread(_ask, port, "/metrics")
            if _total(text, "parley_engine_up") == _NUM_ENGINES:  # else one is on its way back
                engines = _engines(pid)
                os.kill(next(each for each in engines if each != steady), signal.SIGKILL)
                watched.kills += 1


async def _watch(
    pid: int,
    steady: int,
    watched: Watched,
    callers: Sequence[Caller],
    told: Told,
    is_over: asyncio.Event,
) -> None:
    while not is_over.is_set():
        watched.memory.append(_memory(pid))
        watched.engine_memory.append(_memory(steady))
        watched.minutes.append((told.heard_s + told.said_s) / 60 / len(callers))
        watched.descriptors.append(_num_descriptors(pid))
        await asyncio.sleep(1.0)


def _engines(pid: int) -> list[int]:
    """Return the processes of the engines, the one first that has run for longest."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for task in Path(f"/proc/{pid}/task").iterdir():
        children += (task / "children").read_text().split()
    engines = {
        int(child) for child in children if Path(f"/proc/{child}/comm").read_text().strip() == NAME
    }
    # The 22nd field, after the name in brackets: when it was started (proc(5)).
    began = {
        each: int(Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[19])
        for each in engines
    }
    return sorted(engines, key=lambda each: (began[each], each))


def _memory(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def _num_descriptors(pid: int) -> int:
    return len([*Path(f"/proc/{pid}/fd").iterdir()])


# What must not be.


async def _ledger_rest() -> None:
    """Wait until the ledger has what ended last."""
    await asyncio.sleep(2.0)


def _ledger_faults(ledger: Path, told: Told) -> list[str]:
    used = add_up(read_ledger(ledger), ("key",))[("good",)]
    faults = []
    for name, expected in (("responses", told.responses), *told.tokens.items()):
        if getattr(used, name) != expected:
            faults.append(f"ledger: {getattr(used, name)} {name}, callers were told {expected}")
    # Each line is rounded to a thousandth.
    if abs(used.audio_in_seconds - told.said_s) > 0.01 * told.said_s + 1:
        faults.append(f"ledger: {used.audio_in_seconds:.1f} s heard, {told.said_s:.1f} s were said")
    return faults


def _faults(watched: Watched, idle: Row, at_end: Row) -> list[str]:
    faults = [
        f"{name}: {at_end[name]:.0f} at the end"
        for name in ("sessions", "in_engines")
        if at_end[name]
    ]
    faults += [
        f"engines: {at_end[name]:.0f} {name} of {watched.kills} kills"
        for name in ("losses", "restarts")
        if at_end[name] != watched.kills
    ]
    if at_end["up"] != _NUM_ENGINES:
        faults.append(f"engines: {at_end['up']:.0f} of {_NUM_ENGINES} serve at the end")
    if at_end["descriptors"] > idle["descriptors"]:
        faults.append(f"descriptors: {idle['descriptors']} before, {at_end['descriptors']} after")
    for name, values in watched.memories.items():
        second, last = _quarters(values)
        if last > MAX_GROWTH * second and last - second > _KEPT_BYTES:
            faults.append(f"memory of the {name}: {_mb(second):.0f} MB, then {_mb(last):.0f} MB")
    return faults


def _by_minute(minutes: Sequence[float], values: Sequence[int]) -> list[int]:
    """Return the last value of each minute of talk; of one without any, that before it."""
    found: list[int] = []
    for minute, value in zip(minutes, values, strict=True):
        while len(found) <= int(minute):
            found.append(found[-1] if found else value)
        found[-1] = value
    return found


def _mb(num_bytes: float) -> float:
    return round(num_bytes / 2**20, 1)


def _quarters(values: Sequence[int]) -> tuple[float, float]:
    """Return the medians of the second and the last quarter."""
    quarter = max(1, len(values) // 4)
    return statistics.median(values[quarter : 2 * quarter] or values), statistics.median(
        values[-quarter:]
    )


def _name(number: int) -> str:
    """Return a name of small letters that no other number has."""
    letters = string.ascii_lowercase
    return "n" + "".join(letters[int(digit)] for digit in f"{number:04}")


if __name__ == "__main__":
    sys.exit(main())
