"""Peers without a key, or without manners."""

import asyncio
import contextlib
import itertools
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx

from tests.attacks.harness import (
    FEW_DESCRIPTORS,
    KEY,
    KEYED,
    OPEN,
    Attack,
    Target,
    send,
    session,
    until,
)
from tests.server.webrtc.offers import offer

Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def frame(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """Write a short frame of a client, masked with zeros."""
    return struct.pack("!BB", (fin << 7) | opcode, 0x80 | len(payload)) + bytes(4) + payload


def upgrade(key: str, origin: str = "https://example.org", host: str = "127.0.0.1") -> bytes:
    """Write a request for a WebSocket, as a page's browser does."""
    return (
        f"GET /v1/realtime HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nOrigin: {origin}\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nAuthorization: Bearer {key}\r\n\r\n"
    ).encode()


def addresses() -> Iterator[str]:
    """Return addresses of this machine, one after another."""
    return (f"127.1.{high}.{low}" for high in itertools.count() for low in range(1, 250))


@contextlib.asynccontextmanager
async def peer(target: Target, sent: bytes, address: str = "127.0.0.2") -> AsyncIterator[Peer]:
    """Connect from an address, and send something."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", target.port, local_addr=(address, 0)
    )
    try:
        writer.write(sent)
        yield reader, writer
    finally:
        writer.transport.abort()


async def pings(target: Target) -> None:
    """Be told that the key is wrong, then send pings and read no pongs."""

    async def one(address: str) -> None:
        async with peer(target, upgrade("wrong-key-of-sixteen"), address) as (reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVBUF, 1
            )
            reading: Any = writer.transport
            reading.pause_reading()
            many = frame(9, b"x" * 100) * 1_000
            while True:
                writer.write(many)
                await writer.drain()

    await _together(one(address) for address in itertools.islice(addresses(), 4))


async def fragments(target: Target) -> None:
    """Send messages byte by byte: without a key, and with one."""

    async def one(key: str, address: str) -> None:
        async with peer(target, upgrade(key), address) as (reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(frame(1, b"{", fin=False))
            while not reader.at_eof():
                writer.write(frame(0, b" ", fin=False) * 2_000)
                await writer.drain()
                await reader.read(65_536)

    await _together(
        one(key, address)
        for key, address in zip(
            (KEY, "wrong-key-of-sixteen", "wrong-key-of-sixteen"), addresses(), strict=False
        )
    )


async def half_requests(target: Target) -> None:
    """Keep 500 connections open that never finish what they ask."""
    halves = (
        b"",
        b"GET /v1/models HTT",
        b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-A: ",
        b"POST /v1/realtime/client_secrets HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
    )
    async with contextlib.AsyncExitStack() as stack:
        for number, address in enumerate(itertools.islice(addresses(), 500)):
            await stack.enter_async_context(peer(target, halves[number % 4], address))
        await asyncio.sleep(3600)


async def half_open(target: Target) -> None:
    """Ask for a reply, and be gone without a word in the middle of it."""
    async with session(target, ping_interval=None) as client:
        await send(client, "input_audio_buffer.append", audio="AAAA" * 20_000)
        await send(client, "input_audio_buffer.commit")
        await send(client, "response.create")
        await until(client, "response.output_audio.delta", "response.done")
        client.transport.pause_reading()
        await asyncio.sleep(3600)


async def unread_answers(target: Target) -> None:
    """Ask for pages, and read none."""
    request = b"GET /playground.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 200

    async def one(address: str) -> None:
        async with peer(target, request, address) as (_, writer):
            writer.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVBUF, 1
            )
            reading: Any = writer.transport
            reading.pause_reading()
            while True:
                writer.write(request)
                await writer.drain()

    await _together(one(address) for address in itertools.islice(addresses(), 20))


async def guesses(target: Target) -> None:
    """Try keys, as many as are answered."""

    async def one(address: str) -> None:
        for number in itertools.count():
            request = (
                "GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                f"Authorization: Bearer guess-number-{number:06}\r\n\r\n"
            )
            async with peer(target, request.encode(), address) as (reader, _):
                assert b" 200 " not in await reader.readline()

    each = itertools.islice(addresses(), 8)
    await _together(one(address) for address in each for _ in range(4))


async def descriptors(target: Target) -> None:
    """Connect, more often than the server has descriptors."""

    async def one(address: str) -> None:
        while True:
            async with peer(target, b"GET / HTTP/1.1\r\n", address) as (reader, _):
                await reader.read(1)

    await _together(one(address) for address in itertools.islice(addresses(), 400))


async def ephemeral_keys(target: Target) -> None:
    """Hold a key that is bound to one session, and do with it what it is not for."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{target.port}") as http:
        wanted = {"bound": True, "session": {"type": "realtime", "instructions": "be brief"}}
        made = await http.post(
            "/v1/realtime/client_secrets", json=wanted, headers={"authorization": f"Bearer {KEY}"}
        )
        assert made.status_code == 200, made.text
        value = made.json()["value"]
        theirs = {"authorization": f"Bearer {value}"}
        async with session(target, additional_headers=theirs) as client:
            while True:
                change = {"type": "realtime", "instructions": "be mine"}
                await send(client, "session.update", session=change)
                assert (await until(client, "error", "session.updated"))["type"] == "error"
                more = await http.post("/v1/realtime/client_secrets", json={}, headers=theirs)
                assert more.status_code == 401, more.text
                async with peer(target, upgrade(value), "127.0.0.3") as (reader, _):
                    head = await reader.readuntil(b"\r\n\r\n")
                    if b" 101 " in head:  # a page is told why by a close code
                        closing = await reader.read(2)
                        assert closing[0] & 0x0F in (1, 8), closing


async def offers(target: Target) -> None:
    """Offer calls by WebRTC, and never come."""
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/sdp"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{target.port}") as http:
        while True:
            answer = await http.post("/v1/realtime/calls", content=offer(), headers=headers)
            assert answer.status_code in (201, 429, 503), answer.text


async def rebinding(target: Target) -> None:
    """Ask by another name than this machine's, as a page does whose name was pointed here."""
    while True:
        for path in ("/metrics", "/", "/v1/models"):
            request = f"GET {path} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
            async with peer(target, request.encode()) as (reader, _):
                assert b" 403 " in await reader.readline()
        async with peer(target, upgrade("none", host="evil.example")) as (reader, _):
            assert b" 403 " in await reader.readline()


async def origins(target: Target) -> None:
    """Come from pages of other sites, and from origins that are none."""
    while True:
        for origin in ("https://evil.example", "http://[", "http://[::1", "\u00ff://", "null", ":"):
            async with peer(target, upgrade("none", origin=origin)) as (reader, _):
                line = await reader.readline()
                assert b" 403 " in line or b" 400 " in line, (origin, line)
            request = (
                "POST /v1/realtime/client_secrets HTTP/1.1\r\nHost: localhost\r\n"
                f"Origin: {origin}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
            )
            async with peer(target, request.encode()) as (reader, _):
                line = await reader.readline()
                assert b" 403 " in line or b" 400 " in line, (origin, line)


async def _together(attackers: Any) -> None:
    """Attack from several addresses; what the server does to one is the others' no concern."""

    async def going_on(attacker: Any) -> None:
        with contextlib.suppress(OSError, EOFError):
            await attacker

    await asyncio.gather(*map(going_on, attackers))


ATTACKS = [
    Attack("pings after a wrong key", pings, KEYED),
    Attack("messages byte by byte", fragments, KEYED),
    Attack("500 half requests", half_requests, KEYED),
    Attack("gone in mid-reply", half_open, KEYED),
    Attack("answers that are not read", unread_answers, KEYED),
    Attack("keys are guessed", guesses, KEYED),
    Attack("an ephemeral key misused", ephemeral_keys, KEYED),
    Attack("WebRTC offers without end", offers, KEYED),
    Attack("descriptors used up", descriptors, FEW_DESCRIPTORS),
    Attack("DNS rebinding", rebinding, OPEN),
    Attack("other sites' pages", origins, OPEN),
]
