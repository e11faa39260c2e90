"""How long sound takes between a client and the engine: WebSocket, WebRTC and telephone streams.

    python -m benchmarks.bench_transport [--bursts 60] [--only webrtc_chromium …] [--calls 8 16 …]

Everything runs on the loopback interface; the server has a process of its own, and so have the
calls that are load. A client's microphone hands over 20 ms at a time. A sample's latency is from
when it was captured to when the chunk that holds it reaches the engine; a reply's from when the
engine made its first sample to when the client has it decoded and in order. Voice detection is off
where latency is measured and on in the calls that are load.

Lossy: a relay loses 5 % of the packets and delays each by up to 60 ms, so that they overtake each
other. Camera: the call also sends 15 frames a second of 640 × 480 in VP8, of which the server takes
a picture a second. Load: more and more calls of which the server speaks half of the time, until the
p99 of one more call passes 120 ms.

Telephone: a stream as Twilio has it, of µ-law at 8 kHz, in which the client is the provider: what
is between it and the telephone comes on top.

Chromium: a headless one calls through the client of `server/web`, where it is installed. Its
microphone hands over 10 ms at a time. A reply's sample counts when the browser hands it to its
output device; what the browser says of that device, which here is an imitation, is told beside it.
"""

import argparse
import asyncio
import base64
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import websockets

from benchmarks.chromium import CHROMIUM
from benchmarks.chromium_caller import calling_from_chromium
from benchmarks.film import Film
from benchmarks.light_caller import FRAME_S, LightCaller
from benchmarks.pacing import paced
from benchmarks.probe_server import RATE_HZ, STREAM_TOKEN, Finder, burst
from benchmarks.relay import Weather, relaying
from benchmarks.report import ROOT, keep, provenance
from server.audio.g711 import decode_g711, encode_g711
from server.audio.pcm import encode_pcm
from server.webrtc.audio_in import ReceiverCounts

# ITU-T G.114 would have 150 ms one way at most for a conversation; the rest is for the network.
_BAR_P99_MS = 120.0
_MATCH_S = 0.3  # a burst that took longer was lost
PHONE_HZ = 8_000
_NAMES = (
    "websocket",
    "webrtc",
    "telephone",
    "webrtc_camera",
    "webrtc_lossy",
    "webrtc_chromium",
    "webrtc_chromium_lossy",
)
_LOADS = (8, 16, 24, 32, 40, 48, 64)


@dataclass(slots=True)
class Latencies:
    """Latencies in milliseconds, by direction.

    Attributes:
        up: from the microphone to the engine.
        down: from the engine to the client.
        num_lost: bursts that did not come in time.
        device_ms: that a client's output device adds to `down`, by its own word.
        concealed: share of a call's packets that were guessed or reconstructed, by direction; of a
            browser only what it sent.
    """

    up: list[float] = field(default_factory=list)
    down: list[float] = field(default_factory=list)
    num_lost: int = 0
    device_ms: float = 0.0
    concealed: dict[str, float] = field(default_factory=dict)

    def worse(self) -> dict[str, float]:
        """Return p50, p95 and p99 of the direction with the worse p95."""
        return max((quantiles(self.up), quantiles(self.down)), key=lambda row: row["p95_ms"])


def quantiles(values: list[float]) -> dict[str, float]:
    """Return p50, p95 and p99."""
    if not values:
        return {"p50_ms": float("nan"), "p95_ms": float("nan"), "p99_ms": float("nan")}
    return {f"p{q}_ms": round(float(np.percentile(values, q)), 1) for q in (50, 95, 99)}


class Microphone:
    """Speak a burst at a random place now and then, and note when each was captured."""

    def __init__(self, rate_hz: int, seed: int) -> None:
        self._rate_hz = rate_hz
        self._draw = np.random.default_rng(seed)
        self._frames_left = 25
        self.captured_s: list[float] = []

    def __call__(self) -> np.ndarray:
        """Return the 20 ms that have just passed."""
        num = int(self._rate_hz * FRAME_S)
        self._frames_left -= 1
        if self._frames_left:
            return np.zeros(num, dtype=np.float32)
        # Bursts are 320 to 500 ms apart. One that is later than `_MATCH_S` would be taken for the
        # next one.
        self._frames_left = int(self._draw.integers(16, 26))
        # Whole within the frame.
        # At any place in the frame. A sample at the beginning of a frame has waited 20 ms when the
        # frame is handed over, one at its end hardly at all. A caller's words begin anywhere.
        start = int(self._draw.integers(num * 3 // 4))
        # For example, a frame is handed over at 5.000 s with a burst at its sample 120 of 480 (24
        # kHz): that was captured at 5.000 - 0.020 + 0.005 = 4.985 s.
        self.captured_s.append(time.monotonic() - FRAME_S + start / self._rate_hz)
        return burst(num, start, self._rate_hz)


def matched(began_s: list[float], arrived_s: list[float]) -> tuple[list[float], int]:
    """Pair what arrived with what began; returns latencies in milliseconds, and how many not."""
    found: list[float] = []
    for begin_s in began_s:
        # The first arrival after each beginning. What has none within 0.3 s is counted as lost.
        after = [at_s - begin_s for at_s in arrived_s if 0 <= at_s - begin_s < _MATCH_S]
        found += [min(after) * 1000] if after else []
    return found, len(began_s) - len(found)


class Server:
    """The server's process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        ports = json.loads(process.stdout.readline())
        self.port: int = ports["port"]
        self.udp_port: int = ports["udp_port"]

    def stop(self) -> dict[str, Any]:
        """Stop it; returns what it noted."""
        noted, _ = self._process.communicate(timeout=60)
        return dict(json.loads(noted.splitlines()[-1]))


def start_server(*advertised: str) -> Server:
    """Start `probe_server`, which writes where it listens to its output."""
    command = [sys.executable, "-m", "benchmarks.probe_server"]
    for address in advertised:
        command += ["--advertise", address]
    return Server(
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
    )


async def _ask(send: Callable[[str], Any], count: int, seed: int) -> None:
    """Ask for replies at random times."""
    draw = np.random.default_rng(seed)
    for _ in range(count):
        # Longer than a burst may be late, and never in step with the frames.
        await asyncio.sleep(draw.uniform(0.7, 1.1))
        sent = send(json.dumps({"type": "response.create"}))
        if asyncio.iscoroutine(sent):
            await sent
    await asyncio.sleep(0.5)


def _update(**session: Any) -> dict[str, Any]:
    return {"type": "session.update", "session": {"type": "realtime", **session}}


_DEAF = _update(audio={"input": {"turn_detection": None}})


async def measure_websocket(count: int) -> Latencies:
    """Measure one session over a WebSocket."""
    server = start_server()
    microphone, finder = Microphone(RATE_HZ, 1), Finder()

    async def speak(socket: websockets.ClientConnection) -> None:
        async for _ in paced(FRAME_S):
            audio = base64.b64encode(encode_pcm(microphone())).decode()
            await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))

    async def listen(socket: websockets.ClientConnection) -> None:
        async for text in socket:
            event = json.loads(text)
            if event["type"] == "response.output_audio.delta":
                pcm = np.frombuffer(base64.b64decode(event["delta"]), dtype=np.int16)
                finder.hear(pcm.astype(np.float32) / 32_768)

    url = f"ws://127.0.0.1:{server.port}/v1/realtime"
    # Without compression, as the server has it: base64 of sound hardly shrinks.
    async with websockets.connect(url, compression=None) as socket:
        await socket.send(json.dumps(_DEAF))
        tasks = [asyncio.create_task(speak(socket)), asyncio.create_task(listen(socket))]
        await _ask(socket.send, count, 2)
        for task in tasks:
            task.cancel()
    return _result(microphone, finder, server.stop(), None)


async def measure_telephone(count: int) -> Latencies:
    """Measure one telephone call, from the provider's stream on."""
    server = start_server()
    microphone, finder = Microphone(PHONE_HZ, 9), Finder()

    async def speak(socket: websockets.ClientConnection) -> None:
        async for number in paced(FRAME_S):
            payload = base64.b64encode(encode_g711(microphone(), "mu")).decode()
            media = {"track": "inbound", "chunk": f"{number + 1}", "payload": payload}
            await socket.send(json.dumps({"event": "media", "media": media}))

    async def listen(socket: websockets.ClientConnection) -> None:
        async for text in socket:
            message = json.loads(text)
            if message["event"] == "media":
                finder.hear(decode_g711(base64.b64decode(message["media"]["payload"]), "mu"))
            elif message["event"] == "mark":
                await socket.send(text)

    url = f"ws://127.0.0.1:{server.port}/v1/telephony/telnyx"
    headers = {"x-telnyx-streaming-auth-token": STREAM_TOKEN}
    async with websockets.connect(url, additional_headers=headers, compression=None) as socket:
        form = {"encoding": "PCMU", "sample_rate": PHONE_HZ, "channels": 1}
        start = {"call_control_id": "call", "media_format": form}
        await socket.send(json.dumps({"event": "start", "stream_id": "s", "start": start}))
        backend_url = f"ws://127.0.0.1:{server.port}/v1/realtime?call_id=call"
        async with websockets.connect(backend_url) as backend:
            await backend.send(json.dumps(_DEAF))
            tasks = [asyncio.create_task(speak(socket)), asyncio.create_task(listen(socket))]
            tasks += [asyncio.create_task(_read(backend))]  # who reads nothing answers no pings
            await _ask(backend.send, count, 10)
            for task in tasks:
                task.cancel()
    return _result(microphone, finder, server.stop(), None)


async def _read(socket: websockets.ClientConnection) -> None:
    async for _ in socket:
        pass


def _result(
    microphone: Microphone, finder: Finder, noted: dict[str, Any], session_id: str | None
) -> Latencies:
    """Join what both processes noted."""
    if session_id is None:
        (session_id,) = noted["said_s"]
    return _latencies(microphone.captured_s, finder.at_s, noted, session_id)


def _latencies(
    captured_s: list[float], arrived_s: list[float], noted: dict[str, Any], session_id: str
) -> Latencies:
    """Join what a client and the server's process noted of a session."""
    up, lost_up = matched(captured_s, noted["heard_s"].get(session_id, []))
    down, lost_down = matched(noted["said_s"][session_id], arrived_s)
    received = noted["received"]
    concealed = {"up": round(noted["concealed"] / received, 4)} if received else {}
    return Latencies(up, down, lost_up + lost_down, concealed=concealed)


@dataclass(frozen=True, slots=True)
class Measured:
    """What one call has noted, which the server's notes are joined with."""

    microphone: Microphone
    finder: Finder
    session_id: str
    counts: ReceiverCounts

    def joined(self, noted: dict[str, Any]) -> Latencies:
        """Return what both say together."""
        result = _result(self.microphone, self.finder, noted, self.session_id)
        result.concealed["down"] = round(self.counts.concealed / max(1, self.counts.received), 4)
        return result


async def _measured(server: Server, count: int, film: Film | None = None) -> Measured:
    microphone, finder = Microphone(48_000, 3), Finder()
    caller = LightCaller(RATE_HZ, finder.hear, microphone, film)
    await caller.call(server.port)
    created = await caller.until("session.created")
    caller.send(**_DEAF)
    await _ask(lambda text: caller.send(**json.loads(text)), count, 4)
    await caller.close()
    return Measured(microphone, finder, created["session"]["id"], caller.counts)


async def measure_webrtc(
    count: int, weather: Weather | None = None, film: Film | None = None
) -> Latencies:
    """Measure one call, through a relay if there is weather, with a camera if there is a film."""
    if weather is None:
        server = start_server()
        return (await _measured(server, count, film)).joined(server.stop())
    # The server advertises the relay's address as its own, and all that the caller sends goes
    # through it.
    async with relaying(weather) as relay:
        server = start_server(f"127.0.0.1:{relay.port}")
        relay.lead_to(server.udp_port)
        return (await _measured(server, count)).joined(server.stop())


async def measure_chromium(count: int, weather: Weather | None = None) -> Latencies:
    """Measure one call from Chromium, through a relay if there is weather."""
    if weather is None:
        return await _from_chromium(start_server(), count)
    async with relaying(weather) as relay:
        server = start_server(f"127.0.0.1:{relay.port}")
        relay.lead_to(server.udp_port)
        return await _from_chromium(server, count)


async def _from_chromium(server: Server, count: int) -> Latencies:
    draw = np.random.default_rng(7)
    async with calling_from_chromium(server.port, count + 5.0) as caller:
        for _ in range(count):
            await asyncio.sleep(draw.uniform(0.7, 1.1))
            await caller.ask()
        await asyncio.sleep(0.5)
        captured_s, heard_s, device_s = await caller.noted()
        await caller.leave()
    result = _latencies(captured_s, heard_s, server.stop(), caller.session_id)
    result.device_ms = device_s * 1000
    return result


@contextmanager
def _busy_calls(port: int, count: int) -> Iterator[dict[str, float]]:
    """Hold calls that are load, in a process of their own; what that takes is known at the end."""
    command = [sys.executable, "-m", "benchmarks.call_load", "--port", f"{port}"]
    noted: dict[str, float] = {}
    with subprocess.Popen(
        [*command, "--calls", f"{count}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()  # they are all connected
        try:
            yield noted
        finally:
            process.stdin.close()
            noted.update(json.loads(process.stdout.readline() or "{}"))


async def measure_load(num_calls: int, count: int) -> tuple[Latencies, dict[str, float]]:
    """Measure one call beside others; returns also which share of a core each process took."""
    server = start_server()
    with _busy_calls(server.port, num_calls - 1) as callers:
        measured = await _measured(server, count)
    noted = server.stop()
    shares = {"server": round(noted["cpu_share"], 2), "callers": round(callers["cpu_share"], 2)}
    return measured.joined(noted), shares


def _print(name: str, result: Latencies, more: str = "") -> None:
    for direction, values in (("microphone → engine", result.up), ("engine → client", result.down)):
        row = quantiles(values)
        print(
            f"{name:22} {direction:20} n {len(values):4}  p50 {row['p50_ms']:6.1f}  "
            f"p95 {row['p95_ms']:6.1f}  p99 {row['p99_ms']:6.1f} ms{more}"
        )


async def _run(num_bursts: int, names: Sequence[str], loads: Sequence[int]) -> dict[str, Any]:
    results: dict[str, Any] = {}
    # A bad network: every twentieth packet is lost, and each is up to three packets late.
    weather = Weather(loss=0.05, jitter_s=0.06, seed=5)
    measures: dict[str, Callable[[], Awaitable[Latencies]]] = {
        "websocket": lambda: measure_websocket(num_bursts),
        "webrtc": lambda: measure_webrtc(num_bursts),
        "telephone": lambda: measure_telephone(num_bursts),
        "webrtc_camera": lambda: measure_webrtc(num_bursts, film=Film()),
        "webrtc_lossy": lambda: measure_webrtc(num_bursts, weather),
        "webrtc_chromium": lambda: measure_chromium(num_bursts),
        "webrtc_chromium_lossy": lambda: measure_chromium(num_bursts, weather),
    }
    for name in names:
        if CHROMIUM is None and "chromium" in name:
            print(f"{name}: Chromium is not installed")
            continue
        result = await measures[name]()
        assert result.up, "nothing reached the engine"
        assert result.down, "nothing reached the client"
        more = f"  lost {result.num_lost}" if result.num_lost else ""
        more += f"  device {result.device_ms:.0f} ms more" if result.device_ms else ""
        more += "".join(f"  concealed {way} {x:.1%}" for way, x in result.concealed.items() if x)
        _print(name, result, more)
        results[name] = result.worse()
        results[f"{name}_by_direction"] = {
            "up": quantiles(result.up),
            "down": quantiles(result.down),
            "device_ms": round(result.device_ms, 1),
            "concealed": result.concealed,
        }
    if not loads:
        return results
    results["calls"] = 0
    results["load"] = []
    for num_calls in loads:
        result, shares = await measure_load(num_calls, max(20, num_bursts // 3))
        _print(f"{num_calls} calls", result, "".join(f"  {k} {v:.0%}" for k, v in shares.items()))
        # The direction with the worse p95: a conversation is as slow as the slower of the two.
        row: dict[str, Any] = {"calls": num_calls, "cpu_shares": shares, **result.worse()}
        results["load"].append(row)
        if row["p99_ms"] > _BAR_P99_MS:
            break
        results["calls"] = num_calls
    return results


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bursts", type=int, default=60)
    parser.add_argument("--only", nargs="*", choices=_NAMES, default=_NAMES)
    parser.add_argument("--calls", nargs="*", type=int, default=_LOADS)
    args = parser.parse_args()
    source = provenance(ROOT / "configs" / "starter.yaml")
    keep("transport", source, asyncio.run(_run(args.bursts, args.only, args.calls)))


if __name__ == "__main__":
    main()
