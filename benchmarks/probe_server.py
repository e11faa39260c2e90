"""Serve an engine that notes when sound reaches it and when it makes some, in its own process.

Prints its ports as JSON. When its standard input is closed, it stops and prints what it noted.
Times are those of the monotonic clock, which all processes of a machine share.
"""

import argparse
import asyncio
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import uvicorn

from model.messages import (
    AppendAudio,
    CheckTurn,
    Command,
    EngineInfo,
    News,
    Open,
    Output,
    Respond,
    ResponseAudio,
    ResponseDone,
    Taken,
    TurnChecked,
    Usage,
)
from model.metrics import EngineMetrics
from server.app import create_app
from server.config.settings import Settings
from server.config.telephony import TelephonySettings, TelnyxSettings
from server.config.webrtc import WebRtcSettings
from server.process import keep_loaded
from server.serve import listening_socket, uvicorn_config
from server.webrtc.network import Network

RATE_HZ = 24_000
BURST_MS = 5
THRESHOLD = 0.1  # what is louder is a burst
_GAP_S = 0.1  # bursts are further apart
STREAM_TOKEN = "a stream of a telephone provider"  # noqa: S105 - of nobody
BUSY = "busy"
"""Instructions of a session that is there for the load: its replies are long."""
_BUSY_S = 2.0


def burst(num_samples: int, start: int = 0, rate_hz: int = RATE_HZ) -> np.ndarray:
    """Return silence with 5 ms of a tone: float32 [num_samples]."""
    pcm = np.zeros(num_samples, dtype=np.float32)
    length = rate_hz * BURST_MS // 1000
    # 1 kHz, half of full scale. Opus keeps it, and the first half wave is over the threshold at
    # once.
    pcm[start : start + length] = 0.5 * np.sin(2 * np.pi * 1_000 * np.arange(length) / rate_hz)
    return pcm


class Finder:
    """Find when bursts arrive: when the chunk is handed over that holds a burst's beginning."""

    def __init__(self) -> None:
        self.at_s: list[float] = []

    def hear(self, pcm: np.ndarray) -> None:
        """Take a chunk that has just arrived."""
        now_s = time.monotonic()
        if np.abs(pcm).max(initial=0) > THRESHOLD and (
            not self.at_s or now_s - self.at_s[-1] > _GAP_S
        ):
            self.at_s.append(now_s)


class ProbeEngine:
    """Answer with one burst, at once, and note all times."""

    def __init__(self, max_sessions: int) -> None:
        # It says that it sees, so that the server takes a camera; what it is shown it forgets.
        self.info = EngineInfo("probe", RATE_HZ, 80, ("one",), max_sessions, image_side=1_024)
        self.metrics = EngineMetrics()
        self.heard: dict[str, Finder] = defaultdict(Finder)
        self.said_s: dict[str, list[float]] = defaultdict(list)
        self._busy: set[str] = set()
        self._deliver: Callable[[Output | News], None] = lambda _: None

    def start(self, deliver: Callable[[Output | News], None]) -> None:
        """Begin."""
        self._deliver = deliver

    def stop(self) -> None:
        """Do nothing."""

    def submit(self, command: Command) -> None:
        """Take a command."""
        session = command.session_id
        match command:
            case Open():
                if command.instructions == BUSY:
                    self._busy.add(session)
            case AppendAudio():
                self.heard[session].hear(command.pcm)
            case Respond():
                if session in self._busy:
                    time_s = np.arange(int(_BUSY_S * RATE_HZ)) / RATE_HZ
                    pcm = (0.3 * np.sin(2 * np.pi * 300 * time_s)).astype(np.float32)
                else:
                    pcm = burst(RATE_HZ * 80 // 1000)
                    self.said_s[session].append(time.monotonic())
                # From within `submit`: no engine is between the question and the answer, only the
                # way.
                self._deliver(ResponseAudio(session, command.turn, pcm))
                self._deliver(ResponseDone(session, command.turn, "completed", Usage()))
            case CheckTurn():
                self._deliver(TurnChecked(session, command.key, is_finished=False))
            case _:
                pass
        # Without this word a session would hold its audio back after some seconds.
        self._deliver(Taken(session, 1))


async def serve(max_sessions: int, advertised: tuple[str, ...]) -> None:
    """Serve until standard input ends, then print what was noted."""
    engine = ProbeEngine(max_sessions)
    settings = Settings(
        webrtc=WebRtcSettings(port=0, addresses=advertised),
        telephony=TelephonySettings(
            public_url="http://127.0.0.1", telnyx=TelnyxSettings(stream_token=STREAM_TOKEN)
        ),
    )
    network = Network(settings.webrtc, "127.0.0.1", 0)
    app = create_app(settings, {settings.model.name: [engine]}, network)
    keep_loaded()  # as the server does
    runner = uvicorn.Server(uvicorn_config(app, settings))
    listener = listening_socket("127.0.0.1", 0)
    serving = asyncio.create_task(runner.serve(sockets=[listener]))
    while not runner.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    ports = {"port": listener.getsockname()[1], "udp_port": network.udp_port}
    print(json.dumps(ports), flush=True)
    cpu_s, began_s = time.process_time(), time.monotonic()
    await asyncio.to_thread(sys.stdin.read)
    share = (time.process_time() - cpu_s) / (time.monotonic() - began_s)
    runner.should_exit = True
    await serving
    heard = {session: finder.at_s for session, finder in engine.heard.items()}
    counts = app.state.gateway.counts
    noted = {
        "heard_s": heard,
        "said_s": engine.said_s,
        "cpu_share": share,
        "received": counts.call_packets,
        "concealed": counts.call_frames_concealed,
    }
    print(json.dumps(noted))


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-sessions", type=int, default=200)
    parser.add_argument("--advertise", action="append", default=[])
    args = parser.parse_args()
    asyncio.run(serve(args.max_sessions, tuple(args.advertise)))


if __name__ == "__main__":
    main()
