"""Attack a server beside somebody who is talking to it, and report what that person notices.

An attack is a coroutine that is given the server's address. It runs in a process of its own, the
server in another, and the victim here: what one of them computes does not show as another's delay.

    served         a server of its own process, for as long as the context lasts
    talk           what a victim hears of one reply: when it begins, and its longest gap
    attacked       the figures of one attack
"""

import asyncio
import base64
import contextlib
import http.client
import json
import multiprocessing
import os
import re
import subprocess
import sys
import threading
import time
import wave
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

ROOT = Path(__file__).resolve().parents[2]
_QUESTION = ROOT / "tests" / "assets" / "two_plus_two.wav"
_START_S, _TALK_S = 120.0, 60.0
_CHUNK_S = 0.1
_PROBE_S = 0.005
# A victim is hurt by a first sound that is later, or a gap that is longer, than by so much of its
# own without the attack: a ratio, and what a busy machine may add to anybody.
RATIO, GRACE_MS = 3.0, 250.0

Attacker = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Attack:
    """One way to hurt others.

    Attributes:
        name: of the attack.
        run: attacks the server at an address; a module's function, since it runs elsewhere.
        configs: engines that it concerns.
    """

    name: str
    run: Attacker
    configs: tuple[str, ...] = ("scripted", "starter")


@dataclass(frozen=True, slots=True)
class Heard:
    """What a victim has heard of one reply, in milliseconds.

    Attributes:
        first_ms: from the request to the first sound.
        gap_ms: the longest time between two pieces of it.
        failure: what went wrong; None if nothing did.
    """

    first_ms: float
    gap_ms: float
    failure: str | None = None


@dataclass(slots=True)
class Figures:
    """What came of one attack."""

    name: str
    config: str
    alone: Heard
    beside: Heard
    loop_held_ms: float
    memory_kept_mb: float

    @property
    def is_victim_hurt(self) -> bool:
        """Tell whether the victim has noticed something."""
        return self.beside.failure is not None or any(
            with_it > max(RATIO * alone, alone + GRACE_MS)
            for with_it, alone in (
                (self.beside.first_ms, self.alone.first_ms),
                (self.beside.gap_ms, self.alone.gap_ms),
            )
        )


@dataclass(slots=True)
class Server:
    """A server in a process of its own."""

    port: int
    process: subprocess.Popen[str]
    log: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Return the address for WebSockets."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def memory_mb(self) -> float:
        """Return what the server and its own processes hold."""
        return sum(map(_resident_mb, _family(self.process.pid)))


@contextlib.contextmanager
def served(config: str, *settings: str) -> Iterator[Server]:
    """Serve a preset of `configs/` on a free port; `settings` are `key=value`."""
    command = [sys.executable, "-m", "server.cli", "serve", "--config", f"configs/{config}.yaml"]
    for setting in ("server.port=0", *settings):
        command += ["--set", setting]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    server = Server(0, process)
    reader = threading.Thread(target=_read, args=(server,), name="server's log")
    reader.start()
    try:
        deadline_s = time.monotonic() + _START_S
        while not _is_ready(server):
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError("\n".join(["the server did not start", *server.log[-20:]]))
            time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join()


def _read(server: Server) -> None:
    assert server.process.stderr is not None
    for line in server.process.stderr:
        server.log.append(line.rstrip())
        found = re.search(r"url='?ws://[^:]+:(\d+)", line)
        if found and not server.port:
            server.port = int(found[1])
    server.process.stderr.close()


def _is_ready(server: Server) -> bool:
    if not server.port:
        return False
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port)) as client:
        try:
            client.request("GET", "/readyz")
            return client.getresponse().status == 200
        except OSError:
            return False


# The victim.


@contextlib.asynccontextmanager
async def victim(url: str) -> AsyncIterator[ClientConnection]:
    """Open a session that pushes to talk."""
    async with connect(f"{url}/v1/realtime", max_queue=None) as client:
        audio = {"input": {"turn_detection": None}}
        await send(client, "session.update", session={"type": "realtime", "audio": audio})
        await until(client, "session.updated")
        yield client


async def talk(client: ClientConnection) -> Heard:
    """Ask the bundled question as it is spoken, and hear the reply."""
    try:
        async with asyncio.timeout(_TALK_S):
            return await _talk(client)
    except TimeoutError:
        return Heard(_TALK_S * 1000, 0.0, f"no reply within {_TALK_S:.0f} s")
    except ConnectionClosed as error:
        return Heard(0.0, 0.0, f"closed: {error}")


async def _talk(client: ClientConnection) -> Heard:
    with wave.open(str(_QUESTION)) as question:
        size = int(question.getframerate() * _CHUNK_S)
        while chunk := question.readframes(size):
            data = base64.b64encode(chunk).decode()
            await send(client, "input_audio_buffer.append", audio=data)
            await asyncio.sleep(_CHUNK_S)
    await send(client, "input_audio_buffer.commit")
    await send(client, "response.create")
    asked_s = before_s = time.monotonic()
    first_ms, gap_ms = 0.0, 0.0
    async for message in client:
        event = json.loads(message)
        now_s = time.monotonic()
        match event["type"]:
            case "response.output_audio.delta":
                if not first_ms:
                    first_ms = (now_s - asked_s) * 1000
                else:
                    gap_ms = max(gap_ms, (now_s - before_s) * 1000)
                before_s = now_s
            case "error":
                return Heard(first_ms, gap_ms, f"error: {event['error']['message']}")
            case "response.done":
                status = event["response"]["status"]
                failure = None if status == "completed" else f"the response is {status}"
                return Heard(first_ms, gap_ms, failure)
    return Heard(first_ms, gap_ms, "the connection ended")


async def send(client: ClientConnection, kind: str, **event: Any) -> None:  # Any: JSON
    """Send an event."""
    await client.send(json.dumps({"type": kind, **event}))


async def until(client: ClientConnection, *kinds: str) -> dict[str, Any]:
    """Receive up to an event of one of these kinds."""
    while True:
        event: dict[str, Any] = json.loads(await client.recv())
        if event["type"] in kinds:
            return event


# Both.


async def attacked(server: Server, attack: Attack, config: str, *, rounds: int = 3) -> Figures:
    """Let a victim talk alone and then beside an attack, for as long as that lasts."""
    async with victim(server.url) as client:
        alone = _worst([await talk(client) for _ in range(rounds)])
    memory_mb = server.memory_mb
    context = multiprocessing.get_context("spawn")
    attacker = context.Process(target=_attack, args=(attack.run, server.url), daemon=True)
    with _probing(server) as held_ms:
        heard: list[Heard] = []
        async with victim(server.url) as client:
            await asyncio.to_thread(attacker.start)
            while (attacker.is_alive() or len(heard) < rounds) and not (
                heard and heard[-1].failure
            ):
                heard.append(await talk(client))
    attacker.kill()
    attacker.join()
    await asyncio.sleep(1.0)  # what the attack has held is given back by now
    kept_mb = max(0.0, server.memory_mb - memory_mb)
    return Figures(attack.name, config, alone, _worst(heard), max(held_ms, default=0.0), kept_mb)


def _attack(run: Attacker, url: str) -> None:
    with contextlib.suppress(ConnectionClosed, OSError):
        asyncio.run(run(url))  # type: ignore[arg-type]  # every attacker is a coroutine function


def _worst(heard: list[Heard]) -> Heard:
    failure = next((each.failure for each in heard if each.failure), None)
    return Heard(max(h.first_ms for h in heard), max(h.gap_ms for h in heard), failure)


@contextlib.contextmanager
def _probing(server: Server) -> Iterator[list[float]]:
    """Collect how long the event loop took for the smallest question there is, in milliseconds."""
    held_ms: list[float] = []
    is_over = threading.Event()

    def probe() -> None:
        client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=_TALK_S)
        while not is_over.wait(_PROBE_S):
            begin_s = time.monotonic()
            try:
                client.request("GET", "/healthz")
                client.getresponse().read()
            except (OSError, http.client.HTTPException):
                client.close()
            held_ms.append((time.monotonic() - begin_s) * 1000)
        client.close()

    thread = threading.Thread(target=probe, name="probe")
    thread.start()
    try:
        yield held_ms
    finally:
        is_over.set()
        thread.join()


def _family(pid: int) -> list[int]:
    """Return a process and those that it has started, and theirs."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return []
    return [pid, *(each for child in children for each in _family(int(child)))]


def _resident_mb(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
