"""Peers without a key, or without manners, beside a victim that talks on and notices nothing."""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from server.config.server import ServerSettings
from server.config.settings import Settings
from server.transport import tries, wire
from tests.server.fakes import EchoEngine
from tests.server.serving import Served, serving

KEY = "a-key-of-sixteen-or-more"
TIMEOUT_S = 20.0


@asynccontextmanager
async def attacked(**server: Any) -> AsyncIterator[tuple[Served, ClientConnection]]:
    """Serve, and let a victim begin its call."""
    settings = Settings(server=ServerSettings(**{"api_keys": (KEY,), **server}))
    async with serving(EchoEngine(), settings) as served:
        headers = {"authorization": f"Bearer {KEY}"}
        async with connect(f"{served.url}/v1/realtime", additional_headers=headers) as victim:
            await _until(victim, "session.created")
            await talks(victim)
            yield served, victim
            await talks(victim)


async def talks(victim: ClientConnection) -> None:
    """The victim asks and is answered as ever."""
    item = {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "hello"}],
    }
    await victim.send(json.dumps({"type": "conversation.item.create", "item": item}))
    response = {"output_modalities": ["text"]}
    await victim.send(json.dumps({"type": "response.create", "response": response}))
    done = await _until(victim, "response.done")
    assert done["response"]["status"] == "completed"


async def _until(client: ClientConnection, kind: str) -> dict[str, Any]:
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            event: dict[str, Any] = json.loads(await client.recv())
            if event["type"] == kind:
                return event


async def _open(served: Served, sent: bytes, address: str = "127.0.0.2") -> Any:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", served.port, local_addr=(address, 0)
    )
    writer.write(sent)
    return reader, writer


async def _ends(reader: asyncio.StreamReader) -> bytes:
    """Read to the end, which the server makes; a reset is one."""
    received = b""
    async with asyncio.timeout(TIMEOUT_S):
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(65_536):
                received += chunk
    return received


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /v1/models HTT",
        b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-A: ",
        b"POST /v1/realtime/client_secrets HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
        + KEY.encode()
        + b"\r\nContent-Length: 100\r\n\r\n{",
    ],
)
async def test_half_a_request_does_not_stay(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor none at all, nor half a body."""
    monkeypatch.setattr(wire, "HEAD_S", 0.05)
    monkeypatch.setattr(wire, "BODY_S", 0.05)
    async with attacked() as (served, _):
        peers = [await _open(served, sent) for _ in range(20)]
        for reader, writer in peers:
            await _ends(reader)
            writer.close()


async def test_one_address_has_so_many_places() -> None:
    """One more is told so and closed; other addresses have their own."""
    async with attacked(max_connections_per_address=8) as (served, _):
        peers = [await _open(served, b"") for _ in range(12)]
        for reader, _ in peers[8:]:
            assert b"503 Service Unavailable" in await _ends(reader)
        assert (await served.get("/healthz"))[0] == 200
        for _, writer in peers:
            writer.close()


async def test_wrong_keys_are_slowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """And counted, and at some point refused without a look; a right key elsewhere is not."""
    monkeypatch.setattr(tries, "FIRST_WAIT_S", 1_000.0)
    monkeypatch.setattr(tries, "MAX_WAIT_S", 1_000.0)
    request = b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n"
    async with attacked() as (served, _):
        answers = []
        for _ in range(tries.FREE_TRIES + 1):
            reader, writer = await _open(served, request % b"wrong")
            answers.append(await reader.readline())
            writer.close()
        assert all(b" 401 " in answer for answer in answers)
        # From here on even the right key has to wait, from there.
        waiting = [await _open(served, request % KEY.encode()) for _ in range(tries.MAX_WAITING)]
        heard = [asyncio.create_task(reader.readline()) for reader, _ in waiting]
        reader, last = await _open(served, request % KEY.encode())
        assert b" 429 " in await reader.readline()
        assert not any(task.done() for task in heard)
        assert (await served.get("/v1/models", authorization=f"Bearer {KEY}"))[0] == 200
        _, counts = await served.get("/metrics", authorization=f"Bearer {KEY}")
        assert f"parley_failed_keys_total {tries.FREE_TRIES + 1}.0" in counts
        for task in heard:
            task.cancel()
        await asyncio.gather(*heard, return_exceptions=True)
        for _, writer in [*waiting, (reader, last)]:
            writer.close()


def _frame(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """Write a short frame of a client, masked with zeros."""
    return struct.pack("!BB", (fin << 7) | opcode, 0x80 | len(payload)) + bytes(4) + payload


async def _upgraded(served: Served, key: str) -> Any:
    request = (
        "GET /v1/realtime HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Origin: https://example.org\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nAuthorization: Bearer {key}\r\n\r\n"
    )
    reader, writer = await _open(served, request.encode())
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def test_a_page_with_a_wrong_key_is_gone_after_its_close(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is accepted to be told 3000; whatever it sends then, and never reads, it does not stay."""
    monkeypatch.setattr(wire, "LINGER_S", 0.05)
    async with attacked() as (served, _):
        reader, writer = await _upgraded(served, "wrong")
        pings = _frame(9, b"x" * 100) * 1_000
        async with asyncio.timeout(TIMEOUT_S):
            with contextlib.suppress(ConnectionError):
                while not reader.at_eof():
                    writer.write(pings)
                    await writer.drain()
                    await reader.read(1)
        writer.close()


async def test_fragments_are_bounded() -> None:
    """A message of one-byte pieces is closed with 1008."""
    async with attacked() as (served, _):
        reader, writer = await _upgraded(served, KEY)
        writer.write(_frame(1, b"{", fin=False) + _frame(0, b" ", fin=False) * 2_000)
        received = await _ends(reader)
        assert struct.pack("!H", 1008) + b"more than 1024 fragments" in received
        writer.close()


async def test_a_peer_that_answers_no_ping_frees_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a reply that it does not read; the session ends as what it was."""
    monkeypatch.setattr("server.serve._PING_S", 0.1)
    async with attacked() as (served, _):
        reader, writer = await _upgraded(served, KEY)
        writer.transport.pause_reading()  # from here on it is as good as gone
        async with asyncio.timeout(TIMEOUT_S):
            while (await served.get("/readyz"))[1]["sessions"] > 1:
                pass
        _, counts = await served.get("/metrics", authorization=f"Bearer {KEY}")
        assert 'parley_sessions_ended_total{close="ping_timeout"} 1.0' in counts
        del reader
        writer.close()


async def test_sessions_that_the_server_ends_are_counted_as_such() -> None:
    """Not as clients that left, nor as a fault."""
    async with contextlib.AsyncExitStack() as stack:
        async with serving(EchoEngine(), Settings()) as served:
            client = await stack.enter_async_context(connect(f"{served.url}/v1/realtime"))
            await _until(client, "session.created")
            counts = served.app.state.gateway.counts
        await client.wait_closed()
        assert client.close_code == 1012
    assert counts.sessions_ended == {"stopping": 1}


async def test_reading_waits_for_writing() -> None:
    """Pings of a peer that reads nothing are left in its own buffers."""
    async with attacked() as (served, _):
        reader, writer = await _upgraded(served, KEY)
        writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        writer.transport.pause_reading()
        pings = _frame(9, b"x" * 100) * 1_000  # 106 kB, answered with 102 kB of pongs
        num_taken = 0
        with contextlib.suppress(TimeoutError):
            for _ in range(1_000):
                writer.write(pings)
                async with asyncio.timeout(0.5):
                    await writer.drain()
                num_taken += 1
        # What the system buffers of both ends hold; before, all of it was taken.
        assert num_taken < 500
        writer.transport.abort()
        del reader


async def test_an_answer_that_is_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the answer: its connection is aborted, with what was left of it."""
    monkeypatch.setattr(wire, "ANSWER_S", 0.05)
    answering: list[asyncio.Transport] = []
    made = wire.HttpProtocol.connection_made

    def made_narrow(self: wire.HttpProtocol, transport: asyncio.Transport) -> None:
        made(self, transport)
        # What a page takes fits into the buffers of a usual connection.
        transport.set_write_buffer_limits(0)
        narrow = transport.get_extra_info("socket")
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        if transport.get_extra_info("peername")[0] == "127.0.0.9":
            answering.append(transport)

    async with attacked() as (served, _):
        monkeypatch.setattr(wire.HttpProtocol, "connection_made", made_narrow)
        peer = socket.socket()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        peer.bind(("127.0.0.9", 0))
        peer.setblocking(False)
        await asyncio.get_running_loop().sock_connect(peer, ("127.0.0.1", served.port))
        peer.send(b"GET /playground.js HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(TIMEOUT_S):
            while not (answering and answering[0].is_closing()):
                await served.get("/healthz")
        peer.close()


async def test_who_asks_again_before_the_answer_has_one_answer() -> None:
    """With every answer, more questions would be read than were answered."""
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    async with attacked() as (served, _):
        reader, writer = await _open(served, request * 1_000)
        assert (await _ends(reader)).count(b"HTTP/1.1 200 OK") == 1
        writer.close()
        # One after the other is what a connection is kept for.
        reader, writer = await _open(served, b"")
        for _ in range(3):
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 200 OK" in head
            length = next(line for line in head.lower().split(b"\r\n") if b"content-length" in line)
            await reader.readexactly(int(length.partition(b":")[2]))
        writer.close()


async def test_a_read_full_of_small_frames_is_parsed_in_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Others have theirs in between; what follows is not lost, and comes in order."""
    monkeypatch.setattr(wire, "PARSE_S", 0.0)
    turns = [0]
    pieces: list[tuple[int, int]] = []  # the loop's turn, and bytes
    parse = WebSocketsSansIOProtocol.data_received

    def noting(self: WebSocketsSansIOProtocol, data: bytes) -> None:
        pieces.append((turns[0], len(data)))
        parse(self, data)

    async def turning() -> None:
        while True:
            turns[0] += 1
            await asyncio.sleep(0)

    async with attacked() as (served, victim):
        monkeypatch.setattr(WebSocketsSansIOProtocol, "data_received", noting)
        turning_task = asyncio.create_task(turning())
        reader, writer = await _upgraded(served, KEY)
        pieces.clear()
        last = b'{"type": "input_audio_buffer.clear"}'
        writer.write(_frame(9, b"") * 20_000 + _frame(1, last))
        await talks(victim)
        async with asyncio.timeout(TIMEOUT_S):
            received = b""
            while b"input_audio_buffer.cleared" not in received:
                received += await reader.read(65_536)
        assert received.count(b"\x8a\x00") == 20_000, "every ping has its pong"
        writer.close()
        turning_task.cancel()
    # The head of a frame that began in the piece before, of up to 14 bytes, comes with this one.
    assert max(size for _, size in pieces) <= 1_024 + 14
    begun = [turn for turn, size in pieces if size == 1_024]
    assert len(begun) == len({*begun}), "one piece a turn"


async def test_a_rebound_name_reads_nothing() -> None:
    """Without keys, another name than this machine's is refused on every path."""
    async with serving(EchoEngine(), Settings()) as served:
        for path in ("/metrics", "/", "/v1/models"):
            assert (await served.get(path, host="evil.example"))[0] == 403
        with pytest.raises(InvalidStatus) as refused:
            await connect(
                f"{served.url}/v1/realtime".replace("127.0.0.1", "evil.example"),
                host="127.0.0.1",
                port=served.port,
                proxy=None,
            )
        assert refused.value.response.status_code == 403
        assert (await served.get("/metrics", host=f"localhost:{served.port}"))[0] == 200
