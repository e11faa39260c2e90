"""Calls from a browser by other ways than the usual one: a TURN server, TCP, and IPv6."""

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from benchmarks.chromium import CHROMIUM, PATIENCE_S, browsing
from tests.server.serving import Served
from tests.server.web.scripted import scripted

TURN = shutil.which("turnserver")
SECRET = "one that both servers know"  # noqa: S105 - of a server that this test starts
# Whatever the client asks for, it may use the TURN server alone.
RELAY_ONLY = """
const { setConfiguration } = RTCPeerConnection.prototype;
RTCPeerConnection.prototype.setConfiguration = function (given) {
  setConfiguration.call(this, { ...given, iceTransportPolicy: "relay" });
};
"""
# The network lets no UDP through, as far as the browser is told of it.
TCP_ONLY = """
const { setRemoteDescription } = RTCPeerConnection.prototype;
RTCPeerConnection.prototype.setRemoteDescription = function ({ type, sdp }) {
  const without = sdp.replace(/a=candidate:\\S+ 1 udp .*\\r\\n/g, "");
  return setRemoteDescription.call(this, { type, sdp: without });
};
"""
# The path that is used: what our end is, what the other's address, and by which protocol.
PATH = """
(async () => {
  const reports = await parley.wire.pc.getStats();
  const pairs = [...reports.values()].filter((each) => each.type === "candidate-pair");
  const pair = pairs.find((each) => each.nominated);
  const [local, remote] = [reports.get(pair.localCandidateId), reports.get(pair.remoteCandidateId)];
  return [local.candidateType, remote.address, local.protocol];
})()
"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]


def free_port() -> int:
    """Return a port that nobody has."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@asynccontextmanager
async def relay() -> AsyncIterator[int]:
    """Run coturn, with credentials as Parley makes them; yields its port."""
    assert TURN is not None
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        TURN,
        "-n",  # no file of settings
        *("--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", f"--listening-port={port}"),
        *("--use-auth-secret", f"--static-auth-secret={SECRET}", "--realm=parley"),
        *("--allow-loopback-peers", "--no-tls", "--no-dtls", "--no-cli", "--cli-password=x"),
        *("--log-file=stdout", "--simple-log", "--pidfile="),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.05)
                    continue
                writer.close()
                break
        yield port
    finally:
        process.terminate()
        await process.wait()


async def path_of_a_call(served: Served, folder: Path, before: str = "") -> list[str]:
    """Call, write, and hear the reply; returns which way it went."""
    url = f"http://127.0.0.1:{served.port}/"
    async with browsing(url, folder / "profile") as page:
        await page.run(before)
        await page.run(
            """(async () => {
              const { Parley } = await import("/parley-client.js");
              window.parley = new Parley();
              window.loudest = 0;
              parley.on("sound", ({ who, samples }) => {
                if (who === "assistant") loudest = Math.max(loudest, ...samples.map(Math.abs));
              });
              await parley.connect({ microphone: null });
              parley.type("hello");
            })()""",
            as_click=True,
        )
        await page.until("loudest > 0.02")
        way: list[str] = await page.run(PATH)
        await page.run("parley.hangUp()")
    async with asyncio.timeout(PATIENCE_S):
        await served.app.state.calls.until_none()
    return way


@pytest.mark.skipif(TURN is None, reason="needs coturn: apt-get install coturn")
async def test_turn(tmp_path: Path) -> None:
    """The client is told of the server, gets in by what it is told, and sends by it alone."""
    async with relay() as port:
        server = {"urls": [f"turn:127.0.0.1:{port}"], "secret": SECRET}
        webrtc = {"ice_servers": [server], "addresses": ["127.0.0.1"]}
        async with scripted(webrtc) as served:
            kind, address, _ = await path_of_a_call(served, tmp_path, RELAY_ONLY)
            assert (kind, address) == ("relay", "127.0.0.1")


async def test_tcp(tmp_path: Path) -> None:
    """Where no UDP gets through, sound and events go by TCP."""
    async with scripted({"addresses": ["127.0.0.1"], "tcp_port": free_port()}) as served:
        way = await path_of_a_call(served, tmp_path, TCP_ONLY)
    assert way[1:] == ["127.0.0.1", "tcp"]


async def test_ipv6(tmp_path: Path) -> None:
    """The call goes by the family of the one address that the server names."""
    async with scripted({"addresses": ["::1"]}) as served:
        way = await path_of_a_call(served, tmp_path)
    assert way[1] in ("::1", "[::1]")
