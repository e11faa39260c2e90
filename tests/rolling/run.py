"""Restart two servers behind nginx or HAProxy one after the other while callers talk.

One server is told to stop by SIGTERM, drains, ends, and is started again; then the other. What the
callers do, and which calls count as lost, is said in `tests/rolling/callers.py`.

With `--kill` one server is killed (SIGKILL) and started again, and then the engine of the other.

Prints what happened, then one JSON line. The exit code is 1 if a call was lost, a reply cut, or a
session not told that its server stops; with `--kill`, if a call was lost on another server.
"""

import argparse
import asyncio
import datetime as dt
import json
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.engine.child import NAME as ENGINE
from tests.rolling.callers import MAX_CUT_MS, Caller, Figures

ROOT = Path(__file__).resolve().parents[2]
_START_S, _DRAIN_S = 180.0, 120
_DRAINING = re.compile(r"timestamp='(\S+)Z' level='info' event='draining' sessions=(\d+)")
# A server knows of a hang-up when the close frame has come, and has ended the session a little
# after it has answered. On a busy machine both take this long.
_HANG_UP_S = 0.5


@dataclass(frozen=True, slots=True)
class Drained:
    """What a drain was.

    Attributes:
        at_s: when the server began it, in Unix time.
        sessions: that were open then.
        seconds: from the signal to the server's end.
    """

    at_s: float
    sessions: int
    seconds: float

    def leaving(self, untold: Sequence[tuple[float, float]]) -> int:
        """Count the callers who were hanging up when it began, and so were told nothing."""
        return sum(
            began_s - _HANG_UP_S <= self.at_s <= ended_s + _HANG_UP_S for began_s, ended_s in untold
        )


class Parley:
    """One of the two servers, started and stopped as its supervisor would."""

    def __init__(self, name: str, port: int, log: Path, *settings: str) -> None:
        self.name = name
        self.port = port
        self._log = log
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it is ready."""
        command = [sys.executable, "-m", "server.cli", "serve", "--config", "configs/scripted.yaml"]
        settings = (
            f"server.port={self.port}",
            f"server.drain_s={_DRAIN_S}",
            "webrtc.enabled=false",
            "engine.max_sessions=32",
            *self._settings,
        )
        for setting in settings:
            command += ["--set", setting]
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command, cwd=ROOT, stdout=log, stderr=log
            )
        async with asyncio.timeout(_START_S):
            while (await self.ready())[0] != 200:
                if self._process.returncode is not None:
                    raise SystemExit(f"server {self.name} ended:\n{self._log.read_text()[-2000:]}")
                await asyncio.sleep(0.1)

    async def ready(self) -> tuple[int, dict[str, Any]]:
        """Return what `/readyz` answers, (0, {}) while nobody answers."""

        def ask() -> tuple[int, dict[str, Any]]:
            try:
                url = f"http://127.0.0.1:{self.port}/readyz"
                with urllib.request.urlopen(url, timeout=5) as answer:
                    return answer.status, json.load(answer)
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, json.load(error)
            except OSError:
                return 0, {}

        return await asyncio.to_thread(ask)

    async def drain(self) -> "Drained":
        """Tell it to stop, and wait until it has."""
        assert self._process is not None
        began_s = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        await self._process.wait()
        # What it says itself: a session may come or go between any question and the signal.
        at, sessions = _DRAINING.findall(self._log.read_text())[-1]
        at_s = dt.datetime.fromisoformat(f"{at}+00:00").timestamp()
        return Drained(at_s, int(sessions), time.monotonic() - began_s)

    def kill_engine(self) -> None:
        """Kill the process of its engine."""
        assert self._process is not None
        tasks = Path(f"/proc/{self._process.pid}/task").glob("*/children")
        children = {child for file in tasks for child in file.read_text().split()}
        (engine,) = (
            int(child)
            for child in children
            if Path(f"/proc/{child}/comm").read_text().strip() == ENGINE
        )
        os.kill(engine, signal.SIGKILL)

    async def kill(self) -> None:
        """End it, whatever it does."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


def _nginx(program: str, config: Path) -> list[str]:
    return [
        program,
        "-p",
        str(config.parent),
        "-e",
        str(config.with_name("e.log")),
        "-c",
        str(config),
    ]


def _haproxy(program: str, config: Path) -> list[str]:
    return [program, "-db", "-f", str(config)]


# What runs before the servers: its configuration here, and how it is started with it.
_PROXIES: dict[str, tuple[str, Callable[[str, Path], list[str]]]] = {
    "nginx": ("nginx.conf", _nginx),
    "haproxy": ("haproxy.cfg", _haproxy),
}


@asynccontextmanager
async def _proxied(name: str, dir_: Path, ports: tuple[int, int]) -> AsyncIterator[int]:
    """Run a proxy before the two; yields its port."""
    file, command = _PROXIES[name]
    program = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        raise SystemExit(f"{name} is not there: make rolling installs it on Debian")
    port = _free_port()
    filled = {
        "dir": str(dir_),
        "first": f"127.0.0.1:{ports[0]}",
        "second": f"127.0.0.1:{ports[1]}",
        "listen": f"127.0.0.1:{port}",
    }
    config = Path(__file__).with_name(file).read_text()
    path = dir_ / file
    path.write_text(re.sub(r"\{(dir|first|second|listen)\}", lambda hit: filled[hit[1]], config))
    process = await asyncio.create_subprocess_exec(*command(program, path))
    try:
        await _listening(port, process)
        yield port
    finally:
        process.terminate()
        await process.wait()


async def _listening(port: int, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(_START_S):
        while True:
            if process.returncode is not None:
                raise SystemExit("the proxy ended")
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def _talking(
    proxy: str, num_callers: int, *settings: str
) -> AsyncIterator[tuple[Figures, list[Parley]]]:
    """Run two servers behind a proxy, and callers who talk until this is left."""
    figures, is_over = Figures(), asyncio.Event()
    with tempfile.TemporaryDirectory() as name:
        dir_ = Path(name)
        servers = [
            Parley(each, _free_port(), dir_ / f"{each}.log", *settings) for each in ("A", "B")
        ]
        try:
            for server in servers:
                await server.start()
            async with (
                _proxied(proxy, dir_, (servers[0].port, servers[1].port)) as port,
                asyncio.TaskGroup() as tasks,
            ):
                url = f"ws://127.0.0.1:{port}/v1/realtime?model=scripted"
                for number in range(num_callers):
                    tasks.create_task(Caller(url, number, figures).talk(is_over), name=f"{number}")
                try:
                    yield figures, servers
                    await _until_replies(figures, num_callers)
                finally:
                    is_over.set()
        finally:
            for server in servers:
                await server.kill()


async def restart(proxy: str, num_callers: int) -> tuple[dict[str, Any], bool]:
    """Restart both servers while callers talk; returns the figures, and whether all is well."""
    drains: list[Drained] = []
    after = 0
    async with _talking(proxy, num_callers) as (figures, servers):
        for server in servers:
            await _until_replies(figures, num_callers)
            before = figures.calls
            drains.append(drained := await server.drain())
            print(f"{server.name}: {drained.sessions} sessions, drained in {drained.seconds:.1f} s")
            await server.start()
            after += figures.calls - before
            print(f"{server.name}: back, {len(figures.lost)} calls lost so far")
    told = {
        "sessions_open_at_drain": sum(each.sessions for each in drains),
        "sessions_told": figures.told,
        "hanging_up_at_drain": sum(each.leaving(figures.untold) for each in drains),
        "calls_ended_while_one_was_away": after,
        "drains_s": [round(each.seconds, 1) for each in drains],
    }
    untold = told["sessions_open_at_drain"] - told["sessions_told"]
    is_cut = any(cut > MAX_CUT_MS for cut in figures.cuts_ms)
    is_well = not figures.lost and not is_cut and untold <= told["hanging_up_at_drain"]
    return _written(proxy, num_callers, figures) | told, is_well


async def kill(proxy: str, num_callers: int) -> tuple[dict[str, Any], bool]:
    """Kill a server, then the engine of the other, while callers talk; returns the same.

    Calls of the server are lost, and made again to the other. Those of the engine are held.
    """
    async with _talking(proxy, num_callers, "engine.placement=process") as (figures, servers):
        await _until_replies(figures, 2 * num_callers)
        first, second = servers
        sessions, open_calls = (await first.ready())[1]["sessions"], figures.open
        await first.kill()
        print(f"{first.name} is killed, with {sessions} sessions; {open_calls} calls are open")
        await _until_replies(figures, 2 * num_callers, is_lossy=True)
        lost, silences_s = len(figures.lost), [*figures.silences_s]
        # In the middle of a reply; now all are those of the other.
        await figures.until(lambda: figures.replying > 0)
        in_engine, replying = figures.open, figures.replying
        second.kill_engine()
        print(f"the engine of {second.name} is killed, with {in_engine} calls, {replying} replies")
        await _until_replies(figures, 2 * num_callers, is_lossy=True)
        await first.start()
    told = {
        "server_killed": {
            "sessions": sessions,
            "calls_open": open_calls,
            "calls_lost": len(silences_s),
            "tries_refused": lost - len(silences_s),
            "silences_s": [round(each, 1) for each in silences_s],
        },
        "engine_killed": {
            "calls_open": in_engine,
            "replies_begun": replying,
            "calls_lost": len(figures.lost) - lost,
            "replies_failed_and_repeated": len(figures.pauses_s),
            "pauses_s": [round(each, 1) for each in figures.pauses_s],
        },
    }
    # A call may end, or begin, between the question and the kill.
    is_well = len(figures.lost) == lost and len(silences_s) <= sessions + 1
    return _written(proxy, num_callers, figures) | told, is_well


def _written(proxy: str, num_callers: int, figures: Figures) -> dict[str, Any]:
    return {
        "proxy": proxy,
        "callers": num_callers,
        "calls": figures.calls,
        "calls_lost": len(figures.lost),
        "why_lost": sorted(set(figures.lost))[:5],
        "replies": figures.replies,
        "longest_cut_ms": round(max(figures.cuts_ms, default=0.0), 1),
        "replies_cut": sum(cut > MAX_CUT_MS for cut in figures.cuts_ms),
    }


async def _until_replies(figures: Figures, more: int, *, is_lossy: bool = False) -> None:
    """Wait until callers have heard so many replies more, or, where none may be, a call is lost."""
    wanted = figures.replies + more
    await figures.until(lambda: figures.replies >= wanted or bool(figures.lost and not is_lossy))


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callers", type=int, default=6, help="who talk at once (6)")
    parser.add_argument("--proxy", choices=_PROXIES, default="nginx")
    parser.add_argument("--kill", action="store_true", help="kill in place of restarting")
    args = parser.parse_args()
    scenario = kill if args.kill else restart
    figures, is_well = asyncio.run(scenario(args.proxy, args.callers))
    print(json.dumps(figures))
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
