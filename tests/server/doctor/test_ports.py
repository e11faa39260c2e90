"""Ports that are free, taken by us, or taken by others."""

import asyncio
import socket

import pytest

from server.config.server import ServerSettings
from server.config.settings import Settings
from server.config.webrtc import WebRtcSettings
from server.doctor.finding import Finding
from server.doctor.ports import check_ports, check_reach
from server.names import parley_version
from tests.server.fakes import EchoEngine
from tests.server.serving import serving


def _found(settings: Settings) -> dict[str, Finding]:
    return {finding.check: finding for finding in check_ports(settings, 4)}


def _settings(port: int = 0, webrtc: dict[str, object] | None = None) -> Settings:
    server = ServerSettings(port=port)
    return Settings(server=server, webrtc=WebRtcSettings.model_validate(webrtc or {}))


def test_free_ports() -> None:
    """They are given back at once."""
    for _ in range(2):
        assert {each.status for each in _found(_settings()).values()} == {"ok"}
    assert _found(_settings(webrtc={"enabled": False}))["port.calls"].status == "skipped"
    few = _found(_settings(webrtc={"ports": [50_000, 50_001]}))["port.calls"]
    assert few.status == "warning", few


async def test_a_port_of_somebody_else() -> None:
    """Who answers otherwise than a Parley is somebody else, and so is who has the UDP port."""

    async def other(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    async with await asyncio.start_server(other, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        found = (await asyncio.to_thread(_found, _settings(port)))["port.http"]
    assert (found.status, str(port) in found.found) == ("error", True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", 0))
        port = datagrams.getsockname()[1]
        found = (await asyncio.to_thread(_found, _settings(webrtc={"port": port})))["port.calls"]
    assert (found.status, str(port) in found.found) == ("error", True)


async def test_a_server_of_ours_that_runs() -> None:
    """It is known by its answer, and no error."""
    async with serving(EchoEngine(), Settings()) as served:
        settings = _settings(served.port)
        found = await asyncio.to_thread(_found, settings)
    assert found["port.http"].status == "warning"
    assert parley_version() in found["port.http"].found
    assert found["port.calls"].status == "skipped"


def test_an_address_that_is_not_ours() -> None:
    """203.0.113.0/24 is for documentation (RFC 5737): no machine has it."""
    server = ServerSettings(host="203.0.113.1", api_keys=("sk-sixteen-or-more-1",))
    (found,) = check_ports(Settings(server=server), 4)
    assert (found.check, found.status) == ("port.http", "error")


@pytest.mark.parametrize(
    ("webrtc", "addresses", "status"),
    [
        ({}, ["10.0.0.5", "fe80::1"], "warning"),
        ({}, ["10.0.0.5", "8.8.8.8"], "ok"),
        ({"addresses": ["voice.example.com"]}, ["10.0.0.5"], "ok"),
        ({"enabled": False}, ["10.0.0.5"], "skipped"),
    ],
)
def test_where_calls_reach_us(webrtc: dict[str, object], addresses: list[str], status: str) -> None:
    """A private address leads nowhere from outside."""
    server = ServerSettings(host="0.0.0.0", api_keys=("sk-sixteen-or-more-1",))  # noqa: S104
    settings = Settings(server=server, webrtc=WebRtcSettings.model_validate(webrtc))
    (found,) = check_reach(settings, addresses)
    assert found.status == status
