"""What the gateway adds to a frame of audio: from the engine's hand to the client's."""

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from benchmarks.report import ROOT, Row, percentile

# Whoever has audio in hand for a second is past the reply's hasty beginning.
# 25 frames of 80 ms are two seconds. A reply begins with several frames at once, and those wait for
# one another.
SKIPPED_FRAMES = 25
_WORDS_PER_MINUTE = 150
_SCRIPT = """
pace: {{first_output_ms: 0, write_ms: 0, words_per_minute: {pace}, real_time_factor: 0.1}}
reply: [{{say: {words}}}]
"""


class LoadError(RuntimeError):
    """Report that the load did not go as it must, so that nothing is measured."""


def measure_gateway(config: Path, num_sessions: int, seconds: float) -> Row:
    """Let sessions talk side by side, server and clients in processes of their own.

    Args:
        config: settings of the server.
        num_sessions: clients; each streams its microphone and is spoken to, both in real time.
        seconds: for which each is spoken to.

    Returns:
        Milliseconds from the moment at which the engine hands over a frame of 80 ms to its arrival
        at the client, over all frames but each session's first; the lag of the server's event loop
        (how much too late it gets to a timer); and the cores that the server kept busy.

    Raises:
        LoadError: not every session got its audio.
    """
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "script.yaml"
        # For example, 30 s of audio need 75 words at 150 a minute, and 100 are written: no reply
        # may end before the measurement does.
        words = "word " * int((seconds + 10) * _WORDS_PER_MINUTE / 60)
        script.write_text(_SCRIPT.format(pace=_WORDS_PER_MINUTE, words=words))
        with _process("benchmarks.gateway_server", str(config), str(script), str(num_sessions)) as (
            server,
            answers,
        ):
            port = json.loads(answers.readline())["port"]
            arrived_s = _call(port, num_sessions, seconds)
            assert server.stdin is not None
            server.stdin.close()
            noted = json.loads(answers.readline())
    added_ms = added(noted["handed_over_s"], arrived_s, num_sessions)
    lags_ms = [1000 * lag_s for lag_s in noted["lags_s"]]
    return {
        "sessions": num_sessions,
        "n": len(added_ms),
        "added_p50_ms": percentile(added_ms, 50),
        "added_p95_ms": percentile(added_ms, 95),
        "added_p99_ms": percentile(added_ms, 99),
        "added_max_ms": percentile(added_ms, 100),
        "lag_p50_ms": percentile(lags_ms, 50),
        "lag_p99_ms": percentile(lags_ms, 99),
        "server_cores": round(noted["num_cores"], 2),
    }


def added(
    handed_over_s: Mapping[str, Sequence[float]],
    arrived_s: Mapping[str, Sequence[float]],
    num_sessions: int,
) -> list[float]:
    """Pair every frame's departure with its arrival.

    Args:
        handed_over_s: when the engine handed over each frame, by session.
        arrived_s: when each arrived at the client; those still on their way at the end are missing.
        num_sessions: how many there must be.

    Returns:
        Milliseconds between the two, of all sessions' frames after the first `SKIPPED_FRAMES`.

    Raises:
        LoadError: a session is missing, or got no audio, or more than was handed over.
    """
    if len(arrived_s) != num_sessions:
        raise LoadError(f"{len(arrived_s)} sessions out of {num_sessions} were held")
    values = []
    for session_id, arrivals in arrived_s.items():
        departures = handed_over_s.get(session_id, ())
        # More arrivals than departures would mean that something else was counted.
        if not SKIPPED_FRAMES < len(arrivals) <= len(departures):
            raise LoadError(f"{len(arrivals)} frames arrived out of {len(departures)}")
        # Paired by their order, since a WebSocket keeps it. The last frames may still be on their
        # way.
        pairs = zip(departures, arrivals, strict=False)
        values += [1000 * (arrival - departure) for departure, arrival in pairs][SKIPPED_FRAMES:]
    return values


def _call(port: int, num_sessions: int, seconds: float) -> Any:  # Any: JSON
    arguments = (str(port), str(num_sessions), str(seconds))
    with _process("benchmarks.gateway_client", *arguments) as (_, answers):
        line = answers.readline()
    if not line:
        raise LoadError("the clients did not come to an end; what they said is above")
    return json.loads(line)


@contextlib.contextmanager
def _process(module: str, *arguments: str) -> Iterator[tuple["subprocess.Popen[str]", IO[str]]]:
    """Run a module of ours; yields the process and its standard output."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout
    finally:
        with process:
            process.terminate()
