"""Share one UDP port among all calls, and lead every datagram to its call.

STUN names its call by the first half of its user name, which we made up; everything else is told
by the address that it comes from, once a check from there carried the call's password. Nothing is
kept for datagrams that belong to no call.
"""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from aioice import stun

from server.webrtc.ice import Address, Credentials, IceAgent, Wire, is_stun

_MAX_DATAGRAM_BYTES = 2_048  # more than any that fits a network's 1,500
# Read in one turn of the loop; then others have theirs.
_MAX_READS = 64
_RECEIVE_BUFFER_BYTES = 1 << 20  # Linux grants up to net.core.rmem_max
# An address may pass from one call to another once the first has not used it for this long.
_STALE_ADDRESS_S = 5.0
_FIRST_FRAME_TIMEOUT_S = 10.0
_MAX_STRANGERS = 64  # TCP connections that have not shown a call's password yet
_MAX_TCP_BACKLOG_BYTES = 256 * 1_024
_LENGTH = struct.Struct("!H")


@dataclass(slots=True)
class PortCounts:
    """Count what arrives and leaves.

    Attributes:
        unknown: datagrams of no call.
        refused: checks without a call's password.
        unsent: datagrams for which the network had no room.
    """

    unknown: int = 0
    refused: int = 0
    unsent: int = 0


@dataclass(slots=True)
class Exchange:
    """Know which call a datagram belongs to."""

    counts: PortCounts = field(default_factory=PortCounts)
    clock: Callable[[], float] = time.monotonic
    _by_ufrag: dict[str, IceAgent] = field(default_factory=dict)
    _by_address: dict[Address, IceAgent] = field(default_factory=dict)

    def __len__(self) -> int:
        """Count what is remembered: names and addresses of calls."""
        return len(self._by_ufrag) + len(self._by_address)

    def add(self, agent: IceAgent) -> None:
        """Lead what names an agent to it."""
        assert agent.local.ufrag not in self._by_ufrag, "made up anew"
        self._by_ufrag[agent.local.ufrag] = agent

    def restart(self, agent: IceAgent, local: Credentials, remote_ufrag: str) -> None:
        """Lead checks with its new credentials to an agent, and those with the old ones nowhere."""
        del self._by_ufrag[agent.local.ufrag]
        agent.restart(local, remote_ufrag)
        self.add(agent)

    def forget(self, agent: IceAgent) -> None:
        """Lead nothing to an agent any more."""
        for ufrag in [key for key, value in self._by_ufrag.items() if value is agent]:
            del self._by_ufrag[ufrag]
        for address in agent.addresses:
            if self._by_address.get(address) is agent:
                del self._by_address[address]

    def check(self, data: bytes, wire: Wire, address: Address) -> IceAgent | None:
        """Hand a STUN message over; returns whose check it was, None if nobody's."""
        try:
            message = stun.parse_message(data)
        except (ValueError, struct.error):
            # The parser says the second of some mangled messages.
            self.counts.unknown += 1
            return None
        # The receiver's half is before the colon (RFC 8445, section 7.2.2). The name only finds the
        # call; whether the check is good, the call says by its password.
        user = message.attributes.get("USERNAME")
        is_check = (message.message_method, message.message_class) == (
            stun.Method.BINDING,
            stun.Class.REQUEST,
        )
        agent = self._by_ufrag.get(user.partition(":")[0]) if is_check and user else None
        if agent is None:
            self.counts.unknown += 1
            return None
        if not agent.check(message, wire, address):
            self.counts.refused += 1
            return None
        return agent

    def udp(self, data: bytes, wire: Wire, address: Address) -> None:
        """Hand over a datagram that came by UDP."""
        if is_stun(data):
            agent = self.check(data, wire, address)
            if agent is not None:
                self._learn(agent, address)
            return
        agent = self._by_address.get(address)
        if agent is None:
            self.counts.unknown += 1
            return
        agent.datagram(data)

    def _learn(self, agent: IceAgent, address: Address) -> None:
        before = self._by_address.get(address)
        # A router may give one client's port to another after a while. Within 5 s it is rather
        # somebody who has two calls' passwords, and the first call keeps its address.
        is_stale = before is None or self.clock() - before.last_check_s > _STALE_ADDRESS_S
        if before is not agent and is_stale:
            self._by_address[address] = agent


@dataclass(frozen=True, slots=True)
class _UdpWire:
    socket: "UdpSocket"
    address: Address

    def send(self, data: bytes) -> None:
        self.socket.send(data, self.address)


class UdpSocket:
    """Hold one bound UDP socket.

    A socket is bound to one address, never to all: what comes to an address must be answered from
    there.

    Args:
        host: address of this machine.
        port: 0 for any.
        exchange: where datagrams go.

    Raises:
        OSError: it cannot be had.
    """

    def __init__(self, host: str, port: int, exchange: Exchange) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._exchange = exchange
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.settimeout(0)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
            self._socket.bind((host, port))
        except BaseException:
            self._socket.close()
            raise
        self.host = host
        self.port: int = self._socket.getsockname()[1]

    def listen(self) -> None:
        """Begin to read, in the running loop."""
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def send(self, data: bytes, address: Address) -> None:
        """Send a datagram; it is lost where there is no room or no way."""
        try:
            self._socket.sendto(data, address)
        except OSError:
            self._exchange.counts.unsent += 1

    def close(self) -> None:
        """Give the port back."""
        with contextlib.suppress(RuntimeError):  # it never listened
            asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        # 64 packets are more than a second of one call. Under a flood, timers of all calls still
        # ring between two such rounds.
        for _ in range(_MAX_READS):
            try:
                data, address = self._socket.recvfrom(_MAX_DATAGRAM_BYTES)
            except OSError:
                # Nothing more, or what an ICMP message said of an earlier datagram.
                return
            if data:
                self._exchange.udp(data, _UdpWire(self, address), address)


class _TcpWire:
    """Frame datagrams on a TCP connection (RFC 4571)."""

    def __init__(self, writer: asyncio.StreamWriter, counts: PortCounts) -> None:
        self._writer = writer
        self._counts = counts

    def send(self, data: bytes) -> None:
        """Send one, unless the client takes nothing."""
        # TCP would keep all of it, and sound would come later and later. A reply of 24 kbit/s is 3
        # KB a second and headers, so 256 KiB are more than anybody waits for. Beyond that packets
        # are lost, as they would be by UDP.
        waiting = self._writer.transport.get_write_buffer_size()
        if self._writer.is_closing() or waiting > _MAX_TCP_BACKLOG_BYTES:
            self._counts.unsent += 1
            return
        self._writer.write(_LENGTH.pack(len(data)) + data)


class TcpListener:
    """Take calls by TCP where a network lets no UDP through (RFC 6544, passive candidates).

    Args:
        exchange: where datagrams go.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._servers: list[asyncio.Server] = []
        self._num_strangers = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, hosts: list[str], port: int) -> int:
        """Listen on addresses of this machine; returns the port.

        Raises:
            OSError: it cannot be had.
        """
        for host in hosts:
            server = await asyncio.start_server(self._accept, host, port)
            self._servers.append(server)
            port = server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Stop listening and end all connections."""
        for server in self._servers:
            server.close()
        for task in [*self._tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, EOFError, TimeoutError):
            pass  # it is gone, or not a call's
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._num_strangers >= _MAX_STRANGERS:
            return
        address: Address = writer.get_extra_info("peername")
        wire = _TcpWire(writer, self._exchange.counts)
        self._num_strangers += 1
        try:
            async with asyncio.timeout(_FIRST_FRAME_TIMEOUT_S):
                # The first thing that anybody with a call sends is a check. Whoever sends nothing
                # leaves in 10 s, and 64 such connections at most are open.
                first = await self._frame(reader)
        finally:
            self._num_strangers -= 1
        agent = self._exchange.check(first, wire, address) if is_stun(first) else None
        while agent is not None:
            data = await self._frame(reader)
            if is_stun(data):
                # An agent that is over answers no check.
                agent = self._exchange.check(data, wire, address)
            elif data:
                agent.datagram(data)

    @staticmethod
    async def _frame(reader: asyncio.StreamReader) -> bytes:
        # 16 bits of length, then the datagram (RFC 4571, section 2).
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        return await reader.readexactly(length)
