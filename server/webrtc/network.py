"""Take the ports that calls come by, and say where clients reach them."""

import contextlib
import errno
import ipaddress
import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import ifaddr

from server.config.webrtc import WebRtcSettings
from server.errors import ConfigError, OverloadedError
from server.webrtc.offer import Candidate
from server.webrtc.port import Exchange, TcpListener, UdpSocket

_ANY = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to
# The most that 16 bits hold; each further address gets one less (RFC 8445, section 5.1.2.1).
_TOP_PREFERENCE = 65_535


@dataclass(frozen=True, slots=True)
class Door:
    """Hold what one call is reached by.

    Attributes:
        candidates: for its answer.
        sockets: of its own; empty where calls share them.
    """

    candidates: tuple[Candidate, ...]
    sockets: tuple[UdpSocket, ...] = ()

    def close(self) -> None:
        """Give its own ports back."""
        for each in self.sockets:
            each.close()


class Network:
    """Hold the ports of a server. They are bound when it is made, and read once it listens.

    Args:
        settings: of calls.
        host: that the server listens on; a number or a name.
        port: of its HTTP side.

    Raises:
        ConfigError: a port cannot be had.
    """

    def __init__(self, settings: WebRtcSettings, host: str, port: int) -> None:
        self.exchange = Exchange()
        self._settings = settings
        self._hosts = _local_addresses(host)
        self._advertised = [_resolved(address) for address in settings.addresses]
        self._shared: list[UdpSocket] = []
        self._tcp = TcpListener(self.exchange)
        self._tcp_port: int | None = None
        if settings.ports is None:
            wanted = port if settings.port is None else settings.port
            try:
                self._shared = self._bound(wanted)
            except OSError as error:
                raise ConfigError(_taken(wanted, error)) from None

    @property
    def udp_port(self) -> int | None:
        """Return the port that all calls share; None if each has its own."""
        return self._shared[0].port if self._shared else None

    async def listen(self) -> None:
        """Begin to take datagrams, in the running loop.

        Raises:
            ConfigError: the TCP port cannot be had.
        """
        for each in self._shared:
            each.listen()
        if self._settings.tcp_port is not None:
            try:
                self._tcp_port = await self._tcp.listen(self._hosts, self._settings.tcp_port)
            except OSError as error:
                raise ConfigError(f"webrtc.tcp_port: {error.strerror or error}") from None

    async def close(self) -> None:
        """Give all ports back."""
        for each in self._shared:
            each.close()
        await self._tcp.close()

    def door(self, asked: str) -> Door:
        """Return what a new call is reached by.

        Args:
            asked: host by which its client reached the HTTP side; taken for an address of ours if
                it is a number.

        Raises:
            OverloadedError: no port of the range is free.
        """
        if self._shared:
            return Door(tuple(self._candidates(asked, self._shared[0].port)))
        own = self._own()
        for each in own:
            each.listen()
        return Door(tuple(self._candidates(asked, own[0].port)), tuple(own))

    def _own(self) -> list[UdpSocket]:
        assert self._settings.ports is not None
        first, last = self._settings.ports
        count = last - first + 1
        # From a place of its own for each call: with first-free, a port that was just given back
        # would be the next call's, and late datagrams of the old client would come to it.
        start = random.randrange(count)  # noqa: S311 - spreads calls, keeps no secret
        for index in range(count):
            with contextlib.suppress(OSError):
                return self._bound(first + (start + index) % count)
        raise OverloadedError(f"all ports from {first} to {last} are taken")

    def _bound(self, port: int) -> list[UdpSocket]:
        """Bind one port on every address of ours."""
        bound: list[UdpSocket] = []
        try:
            for host in self._hosts:
                bound.append(UdpSocket(host, port, self.exchange))
                # With port 0 the system chooses for the first address; the others take the same
                # number.
                port = bound[0].port
        except OSError:
            for each in bound:
                each.close()
            raise
        return bound

    def _candidates(self, asked: str, port: int) -> Iterator[Candidate]:
        # An address of a range's call has the port of the call, whatever was advertised.
        hosts = [(host, given or port) for host, given in self._advertised]
        if not hosts:
            hosts = [(host, port) for host in self._reachable(asked)]
        for index, (host, udp_port) in enumerate(hosts):
            yield Candidate(host, udp_port, "udp", _TOP_PREFERENCE - index)
        if self._tcp_port is not None:
            for index, (host, _) in enumerate(hosts):
                yield Candidate(host, self._tcp_port, "tcp", _TOP_PREFERENCE - index)

    def _reachable(self, asked: str) -> list[str]:
        """Return the addresses by which a client may reach us, the likeliest first."""
        found = [asked] if _is_number(asked) else []
        is_local = asked == "localhost" or (bool(found) and ipaddress.ip_address(asked).is_loopback)
        # A client elsewhere cannot reach 127.0.0.1 and would spend checks on it. One on this
        # machine can.
        others = [host for host in self._hosts if not ipaddress.ip_address(host).is_loopback]
        if is_local or not others:
            others = self._hosts
        # The address that stands for all addresses (0.0.0.0) leads nowhere.
        found = [host for host in found if host not in _ANY]
        return [*dict.fromkeys([*found, *others])]


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _local_addresses(host: str) -> list[str]:
    """Return the addresses of this machine that a host stands for.

    Raises:
        ConfigError: it is none.
    """
    if host not in _ANY:
        return [_resolved(host)[0]]
    addresses: list[str] = []
    for adapter in ifaddr.get_adapters():
        for each in adapter.ips:
            # Link-local addresses of IPv6 mean something on one link only.
            text = each.ip if isinstance(each.ip, str) else each.ip[0]
            if not (isinstance(each.ip, tuple) and ipaddress.ip_address(text).is_link_local):
                addresses.append(text)
    if host == "0.0.0.0":  # noqa: S104 - as above
        addresses = [text for text in addresses if ":" not in text]
    return addresses


def _resolved(address: str) -> tuple[str, int | None]:
    """Return the number and port of `host` or `host:port`; IPv6 with a port is in brackets.

    Raises:
        ConfigError: the name is unknown.
    """
    host, port = address, None
    if not _is_number(address):
        head, separator, tail = address.rpartition(":")
        if separator and tail.isdigit():
            host, port = head, int(tail)
        host = host.removeprefix("[").removesuffix("]")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"webrtc.addresses: {address!r} is not an address: {error}") from None
    return str(found[0][4][0]), port


def _taken(port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"webrtc.port: UDP port {port} is in use already; choose another with --set "
            f"webrtc.port={port + 1}, or set webrtc.enabled=false"
        )
    return f"webrtc.port: cannot use UDP port {port}: {error.strerror or error}"
