"""How a server ends that runs as it is run: what its supervisor and its log are told."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 120.0

# Its engine dies as soon as it serves, and can never be built again.
_DOOMED = """
import os, signal, sys
from pathlib import Path
import server.app
from model.engine.process import ProcessEngine, RestartPolicy
from server.cli import main
from tests.server.fakes import EchoSpec

POISON = Path(sys.argv[1])

class Doomed(ProcessEngine):
    def start(self, deliver):
        super().start(deliver)
        POISON.touch()
        os.kill(self.process_id, signal.SIGKILL)

if __name__ == "__main__":
    policy = RestartPolicy(delays_s=(0.0,))
    server.app.make_engine = lambda settings: Doomed(EchoSpec(POISON), policy)
    sys.exit(main(sys.argv[2:]))
"""
_SERVE = ["serve", "--config", "configs/scripted.yaml"]
_SERVE += ["--set", "server.port=0", "--set", "webrtc.enabled=false"]


def test_a_server_whose_engine_is_given_up_says_so_by_its_exit_code(tmp_path: Path) -> None:
    """So that whoever supervises it starts it anew; a port that is taken is another code."""
    command = [sys.executable, "-c", _DOOMED, str(tmp_path / "poison"), *_SERVE]
    ended = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert ended.returncode == 3, ended.stderr
    assert "event='the engine is given up: stopping'" in ended.stderr
    assert ended.stderr.splitlines()[-1] == (
        "parley: the engine died too often, and the server ended with it"
    )


async def _lines_until(stream: asyncio.StreamReader, pattern: str) -> re.Match[str]:
    async with asyncio.timeout(TIMEOUT_S):
        async for line in stream:
            if found := re.search(pattern, line.decode()):
                return found
    raise AssertionError(f"the log ended without {pattern}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_to_stop_is_logged_as_what_it_is(number: signal.Signals) -> None:
    """With the sessions that it ended, whose clients are told; the server ends well."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "server.cli",
        *_SERVE,
        cwd=ROOT,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        url = (await _lines_until(process.stderr, r"url='(ws://[^?]+)"))[1]
        async with connect(url) as client:
            assert json.loads(await client.recv())["type"] == "session.created"
            process.send_signal(number)
            await _lines_until(
                process.stderr, rf"event='stopping' signal='{number.name}' sessions=1"
            )
            await _lines_until(process.stderr, r"event='session ended'.*close='the server stops'")
            await client.wait_closed()
            assert client.close_code == 1012
        async with asyncio.timeout(TIMEOUT_S):
            await process.stderr.read()
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
