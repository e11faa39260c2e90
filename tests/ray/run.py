"""Serve the starter under Ray Serve on this machine, and lose a replica while callers talk.

    one replica, and more callers than its load allows: Serve adds a second one
    one of the two is killed, with its engine: its calls are lost, the others are held
    Serve starts another in its place
    the application is told to have one replica only: the other lets its calls end

What the callers do, and which calls count as lost, is said in `tests/rolling/callers.py`. Prints
what happened, then one JSON line. The exit code is 1 if a call was lost that was on no killed
replica, or a step was not taken. Run by `make test-ray`.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve.schema import ApplicationStatus

from deploy.ray.app import Arguments, build
from tests.rolling.callers import MAX_CUT_MS, Caller, Figures

_NAME = "parley"
_STEP_S = 240.0
_LOOK_S = 0.2


@contextlib.contextmanager
def _cluster() -> Iterator[str]:
    """Run a cluster of this machine; yields the address of its proxy."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="pr", dir="/tmp") as name:
        # A replica asks for one core; that there are two is what the machine can keep apart.
        ray.init(num_cpus=8, include_dashboard=False, _temp_dir=name, log_to_driver=False)
        try:
            serve.start(http_options={"host": "127.0.0.1", "port": port})
            yield f"ws://127.0.0.1:{port}/v1/realtime?model=starter"
        finally:
            serve.shutdown()
            ray.shutdown()


def _arguments(config: str, places: int, least: int, most: int) -> Arguments:
    return Arguments(
        config=config,
        set=[f"engine.max_sessions={places}"],
        min_replicas=least,
        max_replicas=most,
        load=0.5,
        drain_s=120,
    )


def _replicas() -> list[int]:
    """Return the processes of the replicas that answer."""
    deployment = serve.status().applications[_NAME].deployments["parley"]
    states = {str(getattr(key, "value", key)): n for key, n in deployment.replica_states.items()}
    # Ray calls its processes after what they do.
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if file.read_bytes().startswith(f"ray::ServeReplica:{_NAME}:".encode()):
                found.append(int(file.parent.name))
    return found if states == {"RUNNING": len(found)} else []


async def _until(what: str, is_so: Callable[[], bool]) -> float:
    """Wait until something is so; returns the seconds."""
    began_s = time.monotonic()
    async with asyncio.timeout(_STEP_S):
        while not await asyncio.to_thread(is_so):  # noqa: ASYNC110 - Serve tells nobody
            await asyncio.sleep(_LOOK_S)
    seconds = time.monotonic() - began_s
    print(f"{what}: after {seconds:.1f} s", flush=True)
    return round(seconds, 1)


async def run(url: str, config: str, num_callers: int, places: int) -> dict[str, Any]:
    """Go through the steps while callers talk; returns the figures."""
    figures, is_over = Figures(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for number in range(num_callers):
            tasks.create_task(Caller(url, number, figures).talk(is_over), name=f"caller {number}")
        try:
            scaled_s = await _until("a second replica", lambda: len(_replicas()) == 2)
            lost_before = len(figures.lost)
            # So that both have calls: each caller has called anew since the second one came.
            enough = figures.calls + 2 * num_callers
            await figures.until(lambda: figures.calls >= enough or len(figures.lost) > lost_before)
            victim = _replicas()[0]
            open_calls = figures.open
            os.kill(victim, signal.SIGKILL)
            print(f"{victim} is killed, with {open_calls} calls open on the two", flush=True)
            replaced_s = await _until(
                "another in its place",
                lambda: len(found := _replicas()) == 2 and victim not in found,
            )
            enough = figures.replies + 2 * num_callers
            await figures.until(lambda: figures.replies >= enough)
            lost_to_kill = len(figures.lost) - lost_before
            # The same application with one replica: the other is taken away.
            began_s = time.monotonic()
            await asyncio.to_thread(_deploy, _arguments(config, places, 1, 1))
            await _until("one replica less", lambda: len(_replicas()) == 1)
            shrunk_s = round(time.monotonic() - began_s, 1)
            enough = figures.replies + num_callers
            await figures.until(lambda: figures.replies >= enough)
        finally:
            is_over.set()
    return {
        "config": config,
        "callers": num_callers,
        "places_of_a_replica": places,
        "second_replica_s": scaled_s,
        "calls_open_at_kill": open_calls,
        "calls_lost_by_kill": len(figures.silences_s),
        "calls_held": open_calls - len(figures.silences_s),
        "tries_refused_after_kill": lost_to_kill - len(figures.silences_s),
        "silences_s": [round(each, 1) for each in figures.silences_s],
        "replaced_s": replaced_s,
        "one_less_s": shrunk_s,
        "calls": figures.calls,
        "calls_lost_otherwise": len(figures.lost) - lost_to_kill,
        "why_lost": sorted(set(figures.lost))[:5],
        "replies": figures.replies,
        "longest_cut_ms": round(max(figures.cuts_ms, default=0.0), 1),
        "replies_cut": sum(cut > MAX_CUT_MS for cut in figures.cuts_ms),
    }


def _deploy(arguments: Arguments) -> None:
    serve.run(build(arguments), name=_NAME, route_prefix="/", blocking=False)
    assert serve.status().applications[_NAME].status is ApplicationStatus.RUNNING


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callers", type=int, default=3, help="who talk at once (3)")
    parser.add_argument("--places", type=int, default=4, help="sessions of one replica (4)")
    parser.add_argument("--config", default="configs/starter.yaml", help="what is served")
    args = parser.parse_args()
    with _cluster() as url:
        _deploy(_arguments(args.config, args.places, 1, 2))
        figures = asyncio.run(run(url, args.config, args.callers, args.places))
    print(json.dumps(figures))
    return 1 if figures["calls_lost_otherwise"] else 0


if __name__ == "__main__":
    sys.exit(main())
