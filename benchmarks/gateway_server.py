"""Serve the scripted engine in a process of its own, and note when it hands over each frame.

Prints its port as JSON. When its standard input is closed, it stops and prints what it noted. Times
are those of the monotonic clock, which all processes of a machine share.
"""

import argparse
import asyncio
import json
import socket
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import uvicorn

from model.messages import Command, Engine, EngineInfo, News, Output, ResponseAudio
from model.metrics import EngineMetrics
from server.app import create_app
from server.config.load import load_settings
from server.engine import make_engine
from server.logs import set_up_logging
from server.process import keep_loaded
from server.serve import listening_socket, uvicorn_config

_PROBE_S = 0.01


class NotingEngine:
    """Pass everything on to an engine, and note when its frames of audio are handed over."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.handed_over_s: dict[str, list[float]] = defaultdict(list)

    @property
    def info(self) -> EngineInfo:
        """Describe the engine."""
        return self._engine.info

    @property
    def metrics(self) -> EngineMetrics:
        """Return what the engine has counted."""
        return self._engine.metrics

    def start(self, deliver: Callable[[Output | News], None]) -> None:
        """Start the engine; see `Engine.start`."""

        def note_and_deliver(output: Output | News) -> None:
            if isinstance(output, ResponseAudio):
                # In the engine's thread, before the event loop hears of it: the way from one to the
                # other is counted.
                self.handed_over_s[output.session_id].append(time.monotonic())
            deliver(output)

        self._engine.start(note_and_deliver)

    def submit(self, command: Command) -> None:
        """Pass a command on; see `Engine.submit`."""
        self._engine.submit(command)

    def stop(self) -> None:
        """End the wrapped engine; see `Engine.stop`."""
        self._engine.stop()


def main() -> None:
    """Serve until standard input is closed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("script", type=Path)
    parser.add_argument("sessions", type=int)
    args = parser.parse_args()
    set_up_logging()
    overrides = [
        f"model.script={args.script.resolve()}",
        f"engine.max_sessions={args.sessions}",
    ]
    settings = load_settings(args.config, overrides)
    engine = NotingEngine(make_engine(settings))
    app = create_app(settings, {settings.model.name: [engine]})
    keep_loaded()  # as the server does
    server = uvicorn.Server(uvicorn_config(app, settings))
    # The port is taken at once; who connects early waits until the server accepts.
    with listening_socket("127.0.0.1", 0) as listener:
        print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
        cpu_s, wall_s = time.process_time(), time.monotonic()
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            lags_s = runner.run(_serve(server, listener))
    noted = {
        "handed_over_s": engine.handed_over_s,
        "lags_s": lags_s,
        "num_cores": (time.process_time() - cpu_s) / (time.monotonic() - wall_s),
    }
    print(json.dumps(noted), flush=True)


async def _serve(server: uvicorn.Server, listener: socket.socket) -> list[float]:
    lags_s: list[float] = []
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.serve(sockets=[listener]), name="uvicorn")
        probe = tasks.create_task(_probe(lags_s), name="probe")
        await asyncio.to_thread(sys.stdin.read)
        probe.cancel()
        server.should_exit = True
    return lags_s


async def _probe(lags_s: list[float]) -> None:
    """Note how much too late the loop gets to what is due."""
    while True:
        due_s = time.monotonic() + _PROBE_S
        await asyncio.sleep(_PROBE_S)
        # For example, a callback that computes for 15 ms makes a timer of 10 ms up to 15 ms late.
        # All sessions share the loop, so this is what one of them can do to the others.
        lags_s.append(time.monotonic() - due_s)


if __name__ == "__main__":
    main()
