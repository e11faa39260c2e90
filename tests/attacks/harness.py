"""Attack a server beside somebody who is talking to it, and report what that person notices.

An attack is a coroutine that is given a `Target`. It runs in a process of its own, the server in
another, and the victim here: what one of them computes does not show as another's delay.

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
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import wave
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from tests.attacks.watched import LONGEST

ROOT = Path(__file__).resolve().parents[2]
KEY = "a-key-of-sixteen-or-more"
_QUESTION = ROOT / "tests" / "assets" / "two_plus_two.wav"
_START_S, _TALK_S, _READY_S = 120.0, 60.0, 60.0
_CHUNK_S = 0.1
_REST_S = 3.0
_LEAD_S = 0.3  # an attack has begun when its victim speaks, whose question takes longer than this
_NICENESS = 10

# A victim is hurt by a first sound that is so much later than without the attack, or a gap that is
# so much longer: ratios of medians. What is shorter than a frame of sound is no gap.
MAX_RATIO = 3.0
FRAME_MS = 80.0


@dataclass(frozen=True, slots=True)
class Target:
    """What an attacker knows of a server.

    Attributes:
        port: of HTTP and of WebSockets.
        pid: of its process.
    """

    port: int
    pid: int

    @property
    def url(self) -> str:
        """Return the address for WebSockets."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def engine_pid(self) -> int:
        """Return the process of its engine."""
        (found,) = (pid for pid in _family(self.pid) if _name(pid) == "parley-engine")
        return found


@dataclass(frozen=True, slots=True)
class Setup:
    """How a server is set up.

    Attributes:
        settings: `key=value`, beside its preset.
        max_descriptors: that its process may have; None for what there is.
    """

    settings: tuple[str, ...] = ()
    max_descriptors: int | None = None


OPEN = Setup()
KEYED = Setup((f"server.api_keys=[{KEY}]",))
FEW_DESCRIPTORS = Setup(KEYED.settings, max_descriptors=160)
IN_PROCESS = Setup(("engine.placement=process",))


@dataclass(frozen=True, slots=True)
class Attack:
    """One way to hurt others.

    Attributes:
        name: of the attack.
        run: attacks until it is cancelled, or once, and is then called again; a module's function,
            since it runs elsewhere. It raises `AssertionError` where the server does not do what
            protects it.
        setup: of the server.
        is_outage: whether it takes the engine away, once a round. Then the victim hears no reply
            meanwhile, and what counts is its next one, in the same session.
        configs: engines that it concerns.
    """

    name: str
    run: Callable[[Target], Awaitable[None]]
    setup: Setup = OPEN
    is_outage: bool = False
    configs: tuple[str, ...] = ("scripted", "starter")


@dataclass(frozen=True, slots=True)
class Heard:
    """What a victim has heard, in milliseconds.

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
    """What came of one attack.

    Attributes:
        alone: medians of the victim's replies without the attack.
        beside: the same, with it.
        num_waves: times that the attack was begun.
        fault: what the server did not do; None if it did all.
        loop_held_alone_ms: the longest work that one callback of the event loop did, without it.
        loop_held_ms: the same, with it.
        memory_kept_mb: more than before, after it.
    """

    name: str
    config: str
    alone: Heard
    beside: Heard
    num_waves: int
    fault: str | None
    loop_held_alone_ms: float
    loop_held_ms: float
    memory_kept_mb: float

    @property
    def harm(self) -> str | None:
        """Say what the victim has noticed; None for nothing."""
        alone, beside = self.alone, self.beside
        if beside.failure is not None:
            return beside.failure
        if beside.first_ms > MAX_RATIO * alone.first_ms:
            return "it waited for its reply"
        if beside.gap_ms > MAX_RATIO * max(alone.gap_ms, FRAME_MS):
            return "there was a gap in its reply"
        return None


@dataclass(slots=True)
class Server:
    """A server in a process of its own."""

    port: int
    process: subprocess.Popen[str]
    watched: Path
    log: list[str] = field(default_factory=list)

    def held_ms(self) -> float:
        """Return the longest work of the event loop since this was called last."""
        (held_ms,) = LONGEST.unpack(self.watched.read_bytes())
        with self.watched.open("r+b") as file:
            file.write(LONGEST.pack(0.0))
        return float(held_ms)

    @property
    def target(self) -> Target:
        """Return what an attacker knows of it."""
        return Target(self.port, self.process.pid)

    @property
    def memory_mb(self) -> float:
        """Return what the server and its own processes hold."""
        return sum(map(_resident_mb, _family(self.process.pid)))


@contextlib.contextmanager
def served(config: str, setup: Setup = OPEN) -> Iterator[Server]:
    """Serve a preset of `configs/` on a free port."""
    watched = tempfile.NamedTemporaryFile(prefix="parley-held-")  # noqa: SIM115 - until the end
    watched.write(LONGEST.pack(0.0))
    watched.flush()
    command = [sys.executable, "-m", "tests.attacks.watched", watched.name, "serve"]
    command += ["--config", f"configs/{config}.yaml"]
    for setting in ("server.port=0", "server.drain_s=0", *setup.settings):
        command += ["--set", setting]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    if setup.max_descriptors is not None:  # before it has come so far as to raise its limit
        limits = (setup.max_descriptors, setup.max_descriptors)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limits)
    server = Server(0, process, Path(watched.name))
    reader = threading.Thread(target=_read, args=(server,), name="server's log")
    reader.start()
    try:
        deadline_s = time.monotonic() + _START_S
        while not (server.port and is_ready(server.target)):
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
        watched.close()


def _read(server: Server) -> None:
    assert server.process.stderr is not None
    for line in server.process.stderr:
        server.log.append(line.rstrip())
        found = re.search(r"url='?ws://[^:]+:(\d+)", line)
        if found and not server.port:
            server.port = int(found[1])
    server.process.stderr.close()


def is_ready(target: Target) -> bool:
    """Say whether new sessions are let in."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", target.port)) as client:
        try:
            client.request("GET", "/readyz")
            return client.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False


# Clients, of victims and attackers.


@contextlib.asynccontextmanager
async def session(target: Target, **options: Any) -> AsyncIterator[ClientConnection]:
    """Open a session that pushes to talk; `options` as for `connect`."""
    headers = {"authorization": f"Bearer {KEY}"}
    given = {"additional_headers": headers, "max_queue": None, "max_size": None, **options}
    async with connect(f"{target.url}/v1/realtime", **given) as client:
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


async def warm_up(target: Target) -> None:
    """Use everything once: what is started when it is first needed is no attack's doing."""
    await wake_workers(target)
    async with session(target) as client:
        await talk(client)


async def wake_workers(target: Target) -> None:
    """Have the workers for schemas started that an attack before has ended."""
    # A name that nobody used before: what was checked once is remembered, and wakes nobody.
    properties = {f"city_{time.monotonic_ns()}": {"type": "string"}}
    parameters = {"type": "object", "properties": properties}
    tool = {"type": "function", "name": "get_weather", "parameters": parameters}
    await _until_admitted(target)
    async with session(target) as client:
        await send(client, "session.update", session={"type": "realtime", "tools": [tool]})
        await until(client, "session.updated")
        await send(client, "response.create", response={"tool_choice": "required"})
        await until(client, "response.done")


async def _until_admitted(target: Target) -> None:
    """Wait until there is a place: attackers that ended just now may still have theirs.

    Who has sent more than the engine takes is not read, so that its end is seen after that.
    """
    async with asyncio.timeout(_TALK_S):
        while True:
            try:
                async with session(target):
                    return
            except InvalidStatus as refused:
                if refused.response.status_code != 503:
                    raise
            await asyncio.sleep(0.2)


# Both.


async def attacked(server: Server, attack: Attack, config: str, *, rounds: int) -> Figures:
    """Let a victim talk alone and beside an attack, in turn: what else changes changes both."""
    target = server.target
    await wake_workers(target)
    before_mb = server.memory_mb
    context = multiprocessing.get_context("spawn")
    is_on, ours, theirs = context.Event(), *context.Pipe()
    attacker = context.Process(target=_attack, args=(attack, target, is_on, theirs), daemon=True)
    await asyncio.to_thread(attacker.start)
    theirs.close()
    alone: list[Heard] = []
    beside: list[Heard] = []
    calmly_held_ms: list[float] = []
    held_ms: list[float] = []
    num_waves, fault = 0, None
    await asyncio.to_thread(ours.recv)  # it is ready
    try:
        async with session(target) as client:
            for _ in range(rounds):
                server.held_ms()
                alone.append(await talk(client))
                calmly_held_ms.append(server.held_ms())
                is_on.set()
                await asyncio.sleep(_LEAD_S)
                if attack.is_outage:
                    outage = asyncio.to_thread(ours.recv)
                    (_, (waves, said)) = await asyncio.gather(talk(client), outage)
                    await _until_ready(target)
                    await _drain(client)
                    beside.append(await talk(client))
                    is_on.clear()
                else:
                    beside.append(await talk(client))
                    is_on.clear()
                    waves, said = await asyncio.to_thread(ours.recv)
                held_ms.append(server.held_ms())
                num_waves, fault = num_waves + waves, fault or said
                if beside[-1].failure is not None:
                    break
            kept_mb = await _kept_mb(server, before_mb)
    except ConnectionClosed as error:
        beside.append(Heard(0.0, 0.0, f"closed: {error}"))
        kept_mb = 0.0
    finally:
        attacker.kill()
        attacker.join()
    return Figures(
        attack.name,
        config,
        _median(alone),
        _median(beside),
        num_waves,
        fault,
        max(calmly_held_ms, default=0.0),
        max(held_ms, default=0.0),
        kept_mb,
    )


async def _drain(client: ClientConnection) -> None:
    """Leave what a victim is still told of an outage to that outage."""
    with contextlib.suppress(TimeoutError):
        while True:
            await asyncio.wait_for(client.recv(), _REST_S / 2)


async def _until_ready(target: Target) -> None:
    deadline_s = time.monotonic() + _READY_S
    while not await asyncio.to_thread(is_ready, target):
        assert time.monotonic() < deadline_s, "the engine did not come back"
        await asyncio.sleep(0.1)


async def _kept_mb(server: Server, before_mb: float) -> float:
    """Return what is held beyond what was, once everything had time to be given back."""
    least_mb = server.memory_mb
    deadline_s = time.monotonic() + _REST_S
    while time.monotonic() < deadline_s:
        await asyncio.sleep(0.2)
        least_mb = min(least_mb, server.memory_mb)
    return max(0.0, least_mb - before_mb)


def _attack(attack: Attack, target: Target, is_on: Event, ours: Any) -> None:
    """Be the attacker: attack while it is on, then say how often and what went wrong."""
    os.nice(_NICENESS)  # it is another machine's processor that it uses
    ours.send("ready")
    while is_on.wait():
        fault = None
        num_waves = 0
        try:
            num_waves = asyncio.run(_waves(attack, target, is_on))
        except Exception:  # noqa: BLE001 - whatever it was, it is shown
            fault = traceback.format_exc()
        if not attack.is_outage:
            while is_on.is_set():  # the victim is in the middle of its talk
                time.sleep(0.01)
        ours.send((num_waves, fault))
        while attack.is_outage and is_on.is_set():
            time.sleep(0.01)


async def _waves(attack: Attack, target: Target, is_on: Event) -> int:
    num_waves = 0
    while is_on.is_set():
        wave_ = asyncio.ensure_future(attack.run(target))
        num_waves += 1
        while not wave_.done() and (attack.is_outage or is_on.is_set()):
            await asyncio.wait((wave_,), timeout=0.05)
        wave_.cancel()
        # How a connection ends that the server closes on an attacker is no fault of it.
        with contextlib.suppress(
            asyncio.CancelledError, ConnectionClosed, InvalidStatus, InvalidMessage, OSError
        ):
            await wave_
        if attack.is_outage:
            break
        await asyncio.sleep(0)
    return num_waves


def _median(heard: list[Heard]) -> Heard:
    failure = next((each.failure for each in heard if each.failure), None)
    return Heard(
        statistics.median(each.first_ms for each in heard),
        statistics.median(each.gap_ms for each in heard),
        failure,
    )


def _family(pid: int) -> list[int]:
    """Return a process and those that it has started, and theirs."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        for task in Path(f"/proc/{pid}/task").iterdir():
            if task.name != str(pid):
                children += (task / "children").read_text(encoding="ascii").split()
    except OSError:
        return []
    return [pid, *(each for child in children for each in _family(int(child)))]


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _resident_mb(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
