"""How a server ends that runs as it is run: what its supervisor and its log are told."""

import asyncio
import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 120.0

# Its engine dies as soon as it serves, and can never be built again.
_DOOMED = """
import os, signal, sys
from pathlib import Path
import server.serve
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
    server.serve.make_engines = lambda _: {"scripted": [Doomed(EchoSpec(POISON), policy)]}
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
    assert "event='no engine is left: stopping'" in ended.stderr
    assert ended.stderr.splitlines()[-1] == (
        "parley: every engine died too often, and the server ended with them"
    )


async def _lines_until(stream: asyncio.StreamReader, pattern: str) -> re.Match[str]:
    async with asyncio.timeout(TIMEOUT_S):
        async for line in stream:
            if found := re.search(pattern, line.decode()):
                return found
    raise AssertionError(f"the log ended without {pattern}")


class _Serving:
    """A server that runs as it is run, and its log."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url

    async def logs(self, pattern: str) -> None:
        """Wait for a line of the log."""
        assert self.process.stderr is not None
        await _lines_until(self.process.stderr, pattern)

    async def ends(self) -> None:
        """Wait for its end."""
        assert self.process.stderr is not None
        async with asyncio.timeout(TIMEOUT_S):
            await self.process.stderr.read()
            await self.process.wait()

    async def status(self, path: str) -> tuple[int, Any]:
        """Ask over HTTP."""
        url = self.url.replace("ws://", "http://").removesuffix("/v1/realtime") + path

        def ask() -> tuple[int, Any]:
            try:
                with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310
                    return answer.status, json.load(answer)
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, json.load(error)

        return await asyncio.to_thread(ask)


@asynccontextmanager
async def _serving(*settings: str) -> AsyncIterator[_Serving]:
    changes = [word for setting in settings for word in ("--set", setting)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "server.cli", *_SERVE, *changes, cwd=ROOT, stderr=subprocess.PIPE
    )
    try:
        assert process.stderr is not None
        yield _Serving(process, (await _lines_until(process.stderr, r"url='(ws://[^?]+)"))[1])
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _until(client: ClientConnection, kind: str) -> dict[str, Any]:
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            event: dict[str, Any] = json.loads(await client.recv())
            if event["type"] == kind:
                return event


async def _says(client: ClientConnection, text: str) -> dict[str, Any]:
    """Type a turn; returns the response when it is done."""
    content = [{"type": "input_text", "text": text}]
    item = {"type": "message", "role": "user", "content": content}
    await client.send(json.dumps({"type": "conversation.item.create", "item": item}))
    await client.send(json.dumps({"type": "response.create"}))
    response: dict[str, Any] = (await _until(client, "response.done"))["response"]
    return response


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_to_stop_is_logged_as_what_it_is(number: signal.Signals) -> None:
    """With the sessions that it ended, whose clients are told; the server ends well."""
    async with (
        _serving("server.drain_s=0") as server,
        connect(server.url, open_timeout=TIMEOUT_S) as client,
    ):
        assert json.loads(await client.recv())["type"] == "session.created"
        server.process.send_signal(number)
        await server.logs(rf"event='stopping' signal='{number.name}' sessions=1")
        await server.logs(r"event='session ended'.*close='the server stops'")
        await client.wait_closed()
        assert client.close_code == 1012
        await server.ends()


async def test_a_server_that_drains_lets_its_sessions_finish() -> None:
    """They are told, and go on; nobody new comes; when the last has left, the server ends."""
    async with (
        _serving("server.drain_s=3600") as server,
        connect(server.url, open_timeout=TIMEOUT_S) as client,
    ):
        created = await _until(client, "session.created")
        assert (await server.status("/readyz"))[0] == 200
        server.process.send_signal(signal.SIGTERM)
        told = await _until(client, "session.updated")
        assert told["session"]["expires_at"] < created["session"]["expires_at"]
        assert {**told["session"], "expires_at": 0} == {**created["session"], "expires_at": 0}
        status, ready = await server.status("/readyz")
        assert (status, ready["status"], ready["sessions"]) == (503, "draining", 1)
        assert (await server.status("/livez"))[0] == 200
        with pytest.raises(InvalidStatus) as refused:
            await connect(server.url)
        answer = refused.value.response
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert json.loads(answer.body or b"")["error"]["code"] == "draining"
        assert (await _says(client, "hello"))["status"] == "completed"
        assert server.process.returncode is None
        await client.close()
        await server.ends()


async def test_a_drain_has_a_limit() -> None:
    """Sessions that are still open then are closed, with 1012."""
    async with (
        _serving("server.drain_s=1") as server,
        connect(server.url, open_timeout=TIMEOUT_S) as client,
    ):
        await _until(client, "session.created")
        server.process.send_signal(signal.SIGTERM)
        await _until(client, "session.updated")
        async with asyncio.timeout(TIMEOUT_S):
            await client.wait_closed()
        assert client.close_code == 1012
        await server.ends()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_a_drain(number: signal.Signals) -> None:
    """Whoever sends it does not want to wait."""
    async with (
        _serving("server.drain_s=3600") as server,
        connect(server.url, open_timeout=TIMEOUT_S) as client,
    ):
        await _until(client, "session.created")
        server.process.send_signal(signal.SIGTERM)
        await _until(client, "session.updated")
        server.process.send_signal(number)
        async with asyncio.timeout(TIMEOUT_S):
            await client.wait_closed()
        assert client.close_code == 1012
        await server.ends()
