"""Restart two servers behind nginx one after the other while callers talk, and count the cuts.

Each caller speaks with a bare WebSocket by way of nginx: it connects, has some turns, hears every
reply out in real time, hangs up, and calls again. Meanwhile one server is told to stop by SIGTERM,
drains, ends, and is started again; then the other. A call is lost if its connection ends before its
caller hangs up, if it is refused, or if a reply is not completed. A cut is a time in a reply with
nothing left to play: the sound comes later than it is heard.

Prints what happened, then one JSON line. The exit code is 1 if a call was lost or a reply cut.
"""

import argparse
import asyncio
import base64
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
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

ROOT = Path(__file__).resolve().parents[2]
_TEMPLATE = Path(__file__).with_name("nginx.conf")
_START_S, _TURN_S, _DRAIN_S, _REST_S = 180.0, 60.0, 120, 0.5
_BYTES_PER_S = 2 * 24_000
# A frame of sound: what is shorter is not heard as a gap, and this machine does other things.
MAX_CUT_MS = 80.0
_QUESTIONS = ("hello", "what is the capital of france", "tell me a long story")


@dataclass(slots=True)
class Figures:
    """What the callers have noticed.

    Attributes:
        calls: that ended as their callers wanted.
        lost: why each of the others did not.
        told: calls that were told that their server is about to stop.
        held: calls that were open when a server was told to stop, on that server.
        after: calls that began while a server was not there.
        replies: heard to their end.
        cuts_ms: of each reply, the longest time without sound within it.
        replied: set with every reply and every call that is lost.
    """

    calls: int = 0
    lost: list[str] = field(default_factory=list)
    told: int = 0
    held: int = 0
    after: int = 0
    replies: int = 0
    cuts_ms: list[float] = field(default_factory=list)
    replied: asyncio.Event = field(default_factory=asyncio.Event)


class Parley:
    """One of the two servers, started and stopped as its supervisor would."""

    def __init__(self, name: str, port: int, log: Path) -> None:
        self.name = name
        self.port = port
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it is ready."""
        command = [sys.executable, "-m", "server.cli", "serve", "--config", "configs/scripted.yaml"]
        settings = (
            f"server.port={self.port}",
            f"server.drain_s={_DRAIN_S}",
            "webrtc.enabled=false",
            "engine.max_sessions=32",
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

    async def drain(self) -> tuple[int, float]:
        """Tell it to stop, and wait until it has; returns its open sessions and the seconds."""
        assert self._process is not None
        sessions = (await self.ready())[1]["sessions"]
        began_s = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        await self._process.wait()
        return sessions, time.monotonic() - began_s

    async def kill(self) -> None:
        """End it, whatever it does."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


async def _call(url: str, number: int, figures: Figures) -> None:
    """Have one call."""
    try:
        async with connect(url, open_timeout=_TURN_S) as client:
            for turn in range(3):
                await _turn(client, _QUESTIONS[(number + turn) % len(_QUESTIONS)], figures)
            await client.close()
    except (ConnectionClosed, InvalidHandshake, OSError, TimeoutError, AssertionError) as error:
        figures.lost.append(f"{type(error).__name__}: {error}")
        figures.replied.set()
        await asyncio.sleep(_REST_S)
        return
    figures.calls += 1


async def _turn(client: ClientConnection, text: str, figures: Figures) -> None:
    """Ask by text, and play the reply's sound as it comes."""
    content = [{"type": "input_text", "text": text}]
    item = {"type": "message", "role": "user", "content": content}
    await client.send(json.dumps({"type": "conversation.item.create", "item": item}))
    await client.send(json.dumps({"type": "response.create"}))
    played_to_s, cut_s = 0.0, 0.0
    async with asyncio.timeout(_TURN_S):
        while True:
            event = json.loads(await client.recv())
            now_s = time.monotonic()
            match event["type"]:
                case "session.updated":
                    figures.told += 1
                case "response.output_audio.delta":
                    if played_to_s:
                        cut_s = max(cut_s, now_s - played_to_s)
                    played_s = len(base64.b64decode(event["delta"])) / _BYTES_PER_S
                    played_to_s = max(played_to_s, now_s) + played_s
                case "error":
                    raise AssertionError(event["error"]["message"])
                case "response.done":
                    assert event["response"]["status"] == "completed", event["response"]["status"]
                    break
    assert played_to_s, "a reply without sound"
    figures.replies += 1
    figures.cuts_ms.append(cut_s * 1000)
    figures.replied.set()
    await asyncio.sleep(max(0.0, played_to_s - time.monotonic()))  # heard to its end


async def _caller(url: str, first: int, figures: Figures, is_over: asyncio.Event) -> None:
    number = first
    while not is_over.is_set():
        await _call(url, number, figures)
        number += 1


@asynccontextmanager
async def _proxied(dir_: Path, ports: tuple[int, int]) -> AsyncIterator[int]:
    """Run nginx before the two; yields its port."""
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if nginx is None:
        raise SystemExit("nginx is not there: on Debian, apt-get install nginx-light")
    port = _free_port()
    config = _TEMPLATE.read_text()
    filled = {
        "dir": str(dir_),
        "first": f"127.0.0.1:{ports[0]}",
        "second": f"127.0.0.1:{ports[1]}",
        "listen": f"127.0.0.1:{port}",
    }
    path = dir_ / "nginx.conf"
    path.write_text(re.sub(r"\{(dir|first|second|listen)\}", lambda hit: filled[hit[1]], config))
    command = [nginx, "-p", str(dir_), "-e", str(dir_ / "error.log"), "-c", str(path)]
    process = await asyncio.create_subprocess_exec(*command)
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
                raise SystemExit("nginx ended")
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


async def run(num_callers: int) -> dict[str, Any]:
    """Restart both servers while callers talk; returns the figures."""
    figures, is_over = Figures(), asyncio.Event()
    drains_s: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        dir_ = Path(name)
        servers = [Parley(each, _free_port(), dir_ / f"{each}.log") for each in ("A", "B")]
        try:
            for server in servers:
                await server.start()
            async with (
                _proxied(dir_, (servers[0].port, servers[1].port)) as port,
                asyncio.TaskGroup() as tasks,
            ):
                url = f"ws://127.0.0.1:{port}/v1/realtime?model=scripted"
                for number in range(num_callers):
                    tasks.create_task(_caller(url, number, figures, is_over), name=f"{number}")
                for server in servers:
                    await _until_replies(figures, num_callers)
                    before = figures.calls
                    sessions, seconds = await server.drain()
                    print(f"{server.name}: {sessions} sessions, drained in {seconds:.1f} s")
                    figures.held += sessions
                    drains_s.append(round(seconds, 1))
                    await server.start()
                    figures.after += figures.calls - before
                    print(f"{server.name}: back, {len(figures.lost)} calls lost so far")
                await _until_replies(figures, num_callers)
                is_over.set()
        finally:
            for server in servers:
                await server.kill()
    return {
        "callers": num_callers,
        "calls": figures.calls,
        "calls_lost": len(figures.lost),
        "why_lost": figures.lost[:5],
        "sessions_open_at_drain": figures.held,
        "sessions_told": figures.told,
        "calls_ended_while_one_was_away": figures.after,
        "drains_s": drains_s,
        "replies": figures.replies,
        "longest_cut_ms": round(max(figures.cuts_ms, default=0.0), 1),
        "replies_cut": sum(cut > MAX_CUT_MS for cut in figures.cuts_ms),
    }


async def _until_replies(figures: Figures, more: int) -> None:
    """Wait until callers have heard so many replies more."""
    wanted = figures.replies + more
    while figures.replies < wanted and not figures.lost:
        figures.replied.clear()
        await figures.replied.wait()


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callers", type=int, default=6, help="who talk at once (6)")
    figures = asyncio.run(run(parser.parse_args().callers))
    print(json.dumps(figures))
    return 1 if figures["calls_lost"] or figures["replies_cut"] else 0


if __name__ == "__main__":
    sys.exit(main())
