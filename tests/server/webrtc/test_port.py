"""One port for all calls: who gets a datagram, and what strangers cannot do."""

import asyncio
import os
import random
import struct

import pytest
from aioice import stun

from server.config.webrtc import WebRtcSettings
from server.errors import ConfigError, OverloadedError
from server.webrtc.ice import Address, Credentials, IceAgent
from server.webrtc.network import Network
from server.webrtc.port import Exchange

CLIENT = Credentials("client00", "c" * 24)
HOME: Address = ("192.0.2.7", 40_000)
CAFE: Address = ("198.51.100.3", 50_000)


class Wire:
    """Keep what is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, data: bytes) -> None:
        """Send it nowhere."""
        self.sent.append(data)


class Clock:
    """A time that only moves when it is told to."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    """Begin at zero."""
    return Clock()


@pytest.fixture
def exchange(clock: Clock) -> Exchange:
    """Know no call yet."""
    return Exchange(clock=clock)


def call(exchange: Exchange, clock: Clock) -> IceAgent:
    """Begin a call."""
    agent = IceAgent(Credentials.made(), CLIENT.ufrag, clock)
    exchange.add(agent)
    return agent


def check(agent: IceAgent, *, nominates: bool = False, password: str | None = None) -> bytes:
    """Make a check as a client's ICE does."""
    message = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
    message.attributes["USERNAME"] = f"{agent.local.ufrag}:{CLIENT.ufrag}"
    message.attributes["PRIORITY"] = 1
    if nominates:
        message.attributes["USE-CANDIDATE"] = None
    message.add_message_integrity((password or agent.local.password).encode())
    return bytes(message)


async def test_a_check_is_answered(exchange: Exchange, clock: Clock) -> None:
    """With the address that it came from, under our password."""
    agent, wire = call(exchange, clock), Wire()
    exchange.udp(check(agent), wire, HOME)
    answer = stun.parse_message(wire.sent[0])
    assert answer.message_class == stun.Class.RESPONSE
    assert answer.attributes["XOR-MAPPED-ADDRESS"] == HOME
    assert answer.check_message_integrity(agent.local.password.encode())
    assert agent.is_reached.is_set()


async def test_calls_on_one_port(exchange: Exchange, clock: Clock) -> None:
    """Each gets what comes from its own client's address, and sends there."""
    first, second = call(exchange, clock), call(exchange, clock)
    wires = Wire(), Wire()
    exchange.udp(check(first), wires[0], HOME)
    exchange.udp(check(second), wires[1], CAFE)
    exchange.udp(b"\x80 to the second", wires[1], CAFE)
    exchange.udp(b"\x80 to the first", wires[0], HOME)
    assert await first._recv() == b"\x80 to the first"
    assert await second._recv() == b"\x80 to the second"
    await second._send(b"back")
    assert wires[1].sent[-1] == b"back"


async def test_strangers_are_not_answered(exchange: Exchange, clock: Clock) -> None:
    """Whatever they send, nothing is kept and nothing is said."""
    agent, wire = call(exchange, clock), Wire()
    known = len(exchange)
    other = IceAgent(Credentials.made(), CLIENT.ufrag, clock)
    good = check(agent)
    draw = random.Random(1)
    for data in (
        check(agent, password="wrong" * 5),
        check(other),
        b"",
        b"\x80 media of nobody",
        b"\x16 DTLS of nobody",
        *(draw.randbytes(draw.randrange(1, 200)) for _ in range(500)),
        *(_mangled(good, draw) for _ in range(2_000)),
    ):
        exchange.udp(data, wire, HOME)
    assert wire.sent == []
    assert len(exchange) == known
    assert exchange.counts.unknown + exchange.counts.refused > 2_000


def _mangled(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    # All but the checksum, which is the last attribute and not part of what is signed.
    changed[draw.randrange(len(data) - 8)] ^= draw.randrange(1, 256)
    return bytes(changed)


async def test_a_client_moves(exchange: Exchange, clock: Clock) -> None:
    """It is followed where it chooses a path again, and where its old one falls silent."""
    agent, wires = call(exchange, clock), [Wire(), Wire(), Wire()]
    exchange.udp(check(agent, nominates=True), wires[0], HOME)
    exchange.udp(check(agent), wires[1], CAFE)
    await agent._send(b"still at home")
    assert wires[0].sent[-1] == b"still at home"
    exchange.udp(check(agent, nominates=True), wires[1], CAFE)
    await agent._send(b"at the cafe")
    assert wires[1].sent[-1] == b"at the cafe"
    clock.now_s = 10.0
    exchange.udp(check(agent), wires[2], ("203.0.113.9", 7))
    await agent._send(b"behind another address")
    assert wires[2].sent[-1] == b"behind another address"
    assert agent.num_switches == 2


async def test_an_address_is_not_taken_over(exchange: Exchange, clock: Clock) -> None:
    """A call cannot get what is another's by forging its address, until that is gone."""
    first, second = call(exchange, clock), call(exchange, clock)
    exchange.udp(check(first), Wire(), HOME)
    exchange.udp(check(second), Wire(), HOME)
    exchange.udp(b"\x80 mine", Wire(), HOME)
    assert await first._recv() == b"\x80 mine"
    clock.now_s = 60.0
    exchange.udp(check(second), Wire(), HOME)
    exchange.udp(b"\x80 mine now", Wire(), HOME)
    assert await second._recv() == b"\x80 mine now"


async def test_a_restart(exchange: Exchange, clock: Clock) -> None:
    """New credentials count and old ones do not; the path stays until it is replaced."""
    agent, wire = call(exchange, clock), Wire()
    old = check(agent)
    exchange.udp(old, wire, HOME)
    exchange.restart(agent, Credentials.made(), CLIENT.ufrag)
    await agent._send(b"on the old path")
    assert wire.sent[-1] == b"on the old path"
    before = len(wire.sent)
    exchange.udp(old, wire, HOME)
    assert len(wire.sent) == before
    exchange.udp(check(agent, nominates=True), wire, CAFE)
    assert len(wire.sent) == before + 1
    exchange.forget(agent)
    assert len(exchange) == 0


async def test_the_end(exchange: Exchange, clock: Clock) -> None:
    """Whoever waits for a datagram learns that there is none, and nothing is remembered."""
    agent = call(exchange, clock)
    exchange.udp(check(agent), Wire(), HOME)
    waiting = asyncio.create_task(agent._recv())
    await asyncio.sleep(0)
    agent.close()
    exchange.forget(agent)
    with pytest.raises(ConnectionError):
        await waiting
    with pytest.raises(ConnectionError):
        await agent._send(b"late")
    assert len(exchange) == 0


async def test_bounds(exchange: Exchange, clock: Clock) -> None:
    """One client has so many addresses and datagrams, and no more."""
    agent, wire = call(exchange, clock), Wire()
    for port in range(100):
        exchange.udp(check(agent), wire, ("192.0.2.7", 1_000 + port))
    assert len(exchange) == 1 + 16
    for _ in range(1_000):
        exchange.udp(b"\x80", wire, ("192.0.2.7", 1_000))
    assert agent.num_dropped == 1_000 - 256


async def test_tcp() -> None:
    """A client whose network has no UDP sends the same, framed; strangers are hung up on."""
    network = Network(WebRtcSettings(port=0, tcp_port=0), "127.0.0.1", 0)
    await network.listen()
    try:
        door = network.door("127.0.0.1")
        (candidate,) = [each for each in door.candidates if each.protocol == "tcp"]
        assert candidate.to_sdp().endswith("typ host tcptype passive")
        agent = IceAgent(Credentials.made(), CLIENT.ufrag)
        network.exchange.add(agent)

        async def connect(first: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_connection("127.0.0.1", candidate.port)
            writer.write(struct.pack("!H", len(first)) + first)
            return reader, writer

        reader, writer = await connect(check(agent))
        answer = await reader.readexactly(struct.unpack("!H", await reader.readexactly(2))[0])
        assert stun.parse_message(answer).message_class == stun.Class.RESPONSE
        writer.write(b"\0\5hello")
        assert await agent._recv() == b"hello"
        await agent._send(b"back")
        assert await reader.readexactly(6) == b"\0\4back"
        stranger, other = await connect(b"GET / HTTP/1.1")
        assert await stranger.read() == b""
        for each in (writer, other):
            each.close()
            await each.wait_closed()
    finally:
        network.exchange.forget(agent)
        await network.close()


async def test_ports() -> None:
    """A port that is taken is an error that says so; a range that is full refuses calls."""
    first = Network(WebRtcSettings(port=0), "127.0.0.1", 0)
    with pytest.raises(ConfigError, match=r"webrtc.port: UDP port \d+ is in use already"):
        Network(WebRtcSettings(port=first.udp_port), "127.0.0.1", 0)
    with pytest.raises(ConfigError, match="not an address"):
        Network(WebRtcSettings(addresses=("no such host",)), "127.0.0.1", 0)
    await first.close()
    low = 20_000 + os.getpid() % 20_000
    network = Network(WebRtcSettings(ports=(low, low + 1)), "127.0.0.1", 0)
    doors = [network.door("localhost"), network.door("localhost")]
    assert {door.candidates[0].port for door in doors} == {low, low + 1}
    with pytest.raises(OverloadedError, match=f"from {low} to {low + 1}"):
        network.door("localhost")
    for door in doors:
        door.close()
    network.door("localhost").close()
    await network.close()


@pytest.mark.parametrize(
    ("host", "addresses", "asked", "expected"),
    [
        ("127.0.0.1", (), "127.0.0.1", ["127.0.0.1"]),
        ("127.0.0.1", (), "localhost", ["127.0.0.1"]),
        # In a container, the address by which a client asked is that of the machine around it.
        ("127.0.0.1", (), "192.0.2.1", ["192.0.2.1", "127.0.0.1"]),
        ("127.0.0.1", (), "parley.example.com", ["127.0.0.1"]),
        ("127.0.0.1", ("203.0.113.5:9",), "192.0.2.1", ["203.0.113.5"]),
        ("127.0.0.1", ("203.0.113.5", "[2001:db8::1]:9"), "x", ["203.0.113.5", "2001:db8::1"]),
        ("::1", (), "::1", ["::1"]),
    ],
)
async def test_where_clients_find_us(
    host: str, addresses: tuple[str, ...], asked: str, expected: list[str]
) -> None:
    """At what is configured; else where they asked, and at our own addresses."""
    network = Network(WebRtcSettings(port=0, addresses=addresses), host, 0)
    door = network.door(asked)
    assert [each.host for each in door.candidates] == expected
    ports = [9 if ":9" in address[-2:] else network.udp_port for address in addresses]
    assert not addresses or [each.port for each in door.candidates] == ports
    await network.close()
