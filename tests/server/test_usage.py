"""What was used is on the disk, also of a server that was killed in a call."""

import asyncio
import contextlib
import datetime as dt
import functools
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from server.cli import main
from server.config.records import UsageSettings
from server.config.server import KeyLimits, NamedKey, ServerSettings
from server.config.settings import Settings
from server.names import ROOT
from server.session.ledger import read_ledger
from server.transport.api_keys import hashed
from server.usage import add_up
from tests.server.fakes import EchoEngine
from tests.server.serving import serving

TIMEOUT_S = 120.0
KEY = "sk-sixteen-or-more-1"
HEADERS = {"authorization": f"Bearer {KEY}"}
_URL = re.compile(r"ws://[\w.:/]+")
SECOND_OF_SOUND = "AAAA" * 16_000
Event = dict[str, Any]


async def _until(client: ClientConnection, kind: str) -> Event:
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            event: Event = json.loads(await client.recv())
            if event["type"] == kind:
                return event
            assert event["type"] != "error", event


async def _ask(client: ClientConnection) -> Event:
    """Type a turn, and return what the answer cost."""
    content = [{"type": "input_text", "text": "hello"}]
    item = {"type": "message", "role": "user", "content": content}
    await client.send(json.dumps({"type": "conversation.item.create", "item": item}))
    await client.send(json.dumps({"type": "response.create"}))
    usage: Event = (await _until(client, "response.done"))["response"]["usage"]
    return usage


def _keyed(**limits: Any) -> ServerSettings:
    key = NamedKey(name="shop", sha256=hashed(KEY), limits=KeyLimits(**limits))
    return ServerSettings(keys=(key,))


class _Server:
    """A server in a process of its own.

    Args:
        folder: for its configuration, its log and its ledger.
    """

    def __init__(self, folder: Path) -> None:
        self.ledger = folder / "usage.jsonl"
        self._folder = folder
        config = {
            "server": {"port": 0, "keys": [{"name": "shop", "sha256": hashed(KEY)}]},
            "model": {"name": "scripted", "script": "configs/scripts/default.yaml"},
            "engine": {"placement": "thread"},
            "webrtc": {"enabled": False},
            "usage": {"ledger": str(self.ledger), "flush_s": 0.2},
        }
        (folder / "server.yaml").write_text(json.dumps(config))  # JSON is YAML

    @asynccontextmanager
    async def running(self) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
        """Run it; yields the process and its address."""
        command = (sys.executable, "-m", "server.cli", "serve", "--config")
        config, log = self._folder / "server.yaml", self._folder / "log.txt"
        # Into a file: its own children may keep a pipe open when it is gone.
        with log.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *command, str(config), cwd=ROOT, stdout=file, stderr=file
            )
        try:
            async with asyncio.timeout(TIMEOUT_S):
                while (found := _URL.search(log.read_text())) is None:
                    assert process.returncode is None, log.read_text()
                    await asyncio.sleep(0.02)
            yield process, found[0]
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def until(self, is_there: Callable[[list[Event]], bool]) -> None:
        """Wait until the ledger has something."""
        async with asyncio.timeout(TIMEOUT_S):
            while not is_there([*read_ledger(self.ledger)]):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.02)


def _has_responses(number: int, lines: list[Event]) -> bool:
    return _sum(lines, "responses") == number


def _sum(lines: list[Event], name: str) -> float:
    return sum(float(line.get(name, 0)) for line in lines)


async def test_a_server_that_is_killed_in_a_call_loses_a_moment(tmp_path: Path) -> None:
    """What was written stays, to the token; half a line is repaired, and it is gone on with."""
    server = _Server(tmp_path)
    said: list[Event] = []
    async with (
        server.running() as (process, url),
        connect(url, additional_headers=HEADERS, max_queue=None) as client,
    ):
        append = {"type": "input_audio_buffer.append", "audio": SECOND_OF_SOUND}
        await client.send(json.dumps(append))
        for number in range(1, 4):
            said.append(await _ask(client))
            await server.until(functools.partial(_has_responses, number))
        said.append(await _ask(client))
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(ConnectionClosed):
            await _until(client, "never")
    lines = [*read_ledger(server.ledger)]
    # The last one was told a moment ago: it is there whole, or not at all.
    num_written = round(_sum(lines, "responses"))
    assert num_written in (3, 4)
    for name, path in (
        ("output_text_tokens", ("output_token_details", "text_tokens")),
        ("output_audio_tokens", ("output_token_details", "audio_tokens")),
        ("input_text_tokens", ("input_token_details", "text_tokens")),
    ):
        told = sum(usage[path[0]][path[1]] for usage in said[:num_written])
        assert _sum(lines, name) == told
    assert _sum(lines, "audio_in_seconds") == pytest.approx(1.0)
    assert _sum(lines, "audio_out_seconds") > 0
    assert _sum(lines, "sessions") == 1
    assert {line["key"] for line in lines if line["what"] != "started"} == {"shop"}
    assert "ended" not in {line["what"] for line in lines}

    with server.ledger.open("ab") as file:
        file.write(b'{"time": "2026-')
    async with server.running() as (process, url):
        async with connect(url, additional_headers=HEADERS, max_queue=None) as client:
            await _ask(client)
        await server.until(lambda lines: "ended" in {line["what"] for line in lines})
        process.terminate()
        async with asyncio.timeout(TIMEOUT_S):
            await process.wait()
    lines = [*read_ledger(server.ledger)]
    assert [line["cut_bytes"] for line in lines if line["what"] == "started"] == [0, 15]
    assert _sum(lines, "responses") == num_written + 1
    assert lines[-1]["close"] == "client"


async def test_sessions_end_when_the_minutes_of_their_key_are_used_up() -> None:
    """They are told why, and a new one is refused; what has no such key goes on."""
    async with serving(EchoEngine(), Settings(server=_keyed(minutes_a_day=10))) as served:
        url = f"{served.url}/v1/realtime"
        async with connect(url, additional_headers=HEADERS) as client:
            await _until(client, "session.created")
            (account,) = served.app.state.gateway.api_keys.accounts
            account._today_s = 600.0
            async with asyncio.timeout(TIMEOUT_S):
                error = json.loads(await client.recv())["error"]
            assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
            assert "10 minutes of today" in error["message"]
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001
        _, text = await served.get("/metrics", **HEADERS)
        assert 'parley_usage_sessions_total{key="shop",model="starter"} 1.0' in text


async def test_minutes_that_were_used_before_a_restart_are_used(tmp_path: Path) -> None:
    """The ledger has them: a key whose minutes of today are over gets no more by a restart."""
    ledger = tmp_path / "usage.jsonl"
    usage = UsageSettings(ledger=ledger)
    settings = Settings(server=_keyed(minutes_a_day=10), usage=usage)
    async with (
        serving(EchoEngine(), settings) as served,
        connect(f"{served.url}/v1/realtime", additional_headers=HEADERS) as client,
    ):
        await _until(client, "session.created")
    # It may become midnight while this runs: there is as much of tomorrow.
    today = dt.datetime.now(dt.UTC)
    for day in (today, today + dt.timedelta(days=1)):
        head = {"time": f"{day:%F}T00:00:00.000+00:00", "boot": f"{day:%F}", "seq": 0}
        with ledger.open("a") as file:
            line = {"what": "sum", "key": "shop", "model": "starter", "seconds": 600.0}
            file.write(json.dumps({**head, **line}) + "\n")
    async with serving(EchoEngine(), settings) as served:
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{served.url}/v1/realtime", additional_headers=HEADERS)
    answer = refused.value.response
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0
    assert "10 minutes of today" in json.loads(answer.body or b"")["error"]["message"]


async def test_a_ledger_is_closed_with_the_server(tmp_path: Path) -> None:
    """With what the last sessions used."""
    ledger = tmp_path / "usage.jsonl"
    usage = UsageSettings(ledger=ledger, flush_s=3_600)
    async with serving(EchoEngine(), Settings(server=_keyed(), usage=usage)) as served:
        url = f"{served.url}/v1/realtime?model=other"
        async with connect(url, additional_headers=HEADERS, max_queue=None) as client:
            await _ask(client)
    lines = [*read_ledger(ledger)]
    assert [line["what"] for line in lines][:2] == ["started", "began"]
    assert {line["model"] for line in lines[1:]} == {"starter"}, "by its own name"
    assert _sum(lines, "responses") == 1
    with ledger.open("rb"):  # it is free again
        async with serving(EchoEngine(), Settings(server=_keyed(), usage=usage)):
            pass


def test_use_is_added_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By any columns; the last line is for programs."""
    path = tmp_path / "usage.jsonl"
    rows: list[Event] = [
        {"what": "started", "cut_bytes": 0},
        {"what": "began", "key": "shop", "model": "a", "session": "s1", "sessions": 1},
        {"what": "used", "key": "shop", "model": "a", "session": "s1", "seconds": 90.0},
        {"what": "sum", "key": None, "model": "a", "input_text_tokens": 7, "responses": 2},
        {"what": "ended", "key": "shop", "model": "b", "session": "s2", "output_audio_tokens": 5},
    ]
    for number, row in enumerate(rows):
        head = {"time": f"2026-11-{29 + number // 4}T10:00:00.000+00:00", "boot": "x"}
        with path.open("a") as file:
            file.write(json.dumps({**head, "seq": number, **row}) + "\n")
    assert list(add_up(read_ledger(path), ("day",))) == [("2026-11-29",), ("2026-11-30",)]
    assert main(["usage", str(path)]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split()[:4] == ["key", "model", "sessions", "minutes"]
    assert table[2].split() == ["shop", "a", "1", "1.5", "0.0", "0.0", "0", "0", "0", "0"]
    assert json.loads(table[-1])["usage"] == [
        {"key": "", "model": "a", "responses": 2, "input_text_tokens": 7},
        {"key": "shop", "model": "a", "sessions": 1, "seconds": 90.0},
        {"key": "shop", "model": "b", "output_audio_tokens": 5},
    ]
    assert main(["usage", str(path), "--by", "session"]) == 0
    assert main(["usage", str(tmp_path / "none.jsonl")]) != 0
    with pytest.raises(SystemExit):
        main(["usage", str(path), "--by", "colour"])
