"""Whether the server's addresses can be had."""

import asyncio
import contextlib
import ipaddress
import json
import urllib.request
from collections.abc import Iterable, Iterator

from server.config.server import is_loopback
from server.config.settings import Settings
from server.doctor.finding import Finding, error, ok, skipped, warning
from server.errors import ConfigError
from server.serve import listening_socket

_ANSWER_S = 2.0
_FIRST_FREE_PORT = 1_024  # below, only root may listen: ip(7)


def check_ports(settings: Settings, sessions: int) -> Iterator[Finding]:
    """Take the ports for a moment, as a server does.

    Args:
        settings: of the server.
        sessions: that are admitted.
    """
    host, port = settings.server.host, settings.server.port
    try:
        with contextlib.closing(listening_socket(host, port)) as listener:
            taken = listener.getsockname()[1]
            yield ok("port.http", f"{host}:{port} is free")
            yield _calls(settings, sessions, host, taken)
    except ConfigError as problem:
        if version := running_version(host, port):
            yield warning(
                "port.http",
                f"Parley {version} is running on {host}:{port} already",
                "nothing, if this is the server that you ask about; else stop it, or choose "
                "another server.port",
            )
            yield skipped("port.calls", "a running server has its ports")
            return
        low = 0 < port < _FIRST_FREE_PORT
        yield error(
            "port.http",
            str(problem),
            "let a proxy listen there, or choose a server.port from 1024"
            if low
            else "stop what uses it (`ss -ltnp`), or choose another server.port or server.host",
        )


def running_version(host: str, port: int) -> str | None:
    """Ask who listens at an address; returns the version of a Parley, None of anything else."""
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/livez"
    # Not by way of a proxy that the environment names: it is about this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_ANSWER_S) as answer:
            return str(json.load(answer)["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _calls(settings: Settings, sessions: int, host: str, port: int) -> Finding:
    """Take the ports of calls by WebRTC."""
    name = "port.calls"
    if not settings.webrtc.enabled:
        return skipped(name, "webrtc.enabled is false")
    from server.webrtc.network import Network  # noqa: PLC0415 - aiortc takes a second to load

    async def take() -> int | None:
        network = Network(settings.webrtc, host, port)
        try:
            await network.listen()
            return network.udp_port
        finally:
            await network.close()

    try:
        udp_port = asyncio.run(take())
    except ConfigError as problem:
        return error(name, str(problem), "stop what uses it (`ss -lunp`), or choose another port")
    if settings.webrtc.ports is None:
        return ok(name, f"UDP port {udp_port} is free; open it in the firewall")
    first, last = settings.webrtc.ports
    count = last - first + 1
    if count < sessions:
        return warning(
            name,
            f"webrtc.ports has {count} ports, and {sessions} sessions may be open",
            "widen webrtc.ports, or leave it out: calls then share one port",
        )
    return ok(name, f"calls take one of {count} UDP ports; open {first} to {last} in the firewall")


def check_reach(settings: Settings, addresses: Iterable[str]) -> Iterator[Finding]:
    """Say whether clients of calls are told an address that they can reach.

    Args:
        settings: of the server.
        addresses: of this machine.
    """
    name = "calls.addresses"
    if not settings.webrtc.enabled or is_loopback(settings.server.host):
        yield skipped(name, "calls come from this machine only, or not at all")
    elif settings.webrtc.addresses:
        yield ok(name, f"clients are told {', '.join(settings.webrtc.addresses)}")
    elif any(ipaddress.ip_address(each).is_global for each in addresses):
        yield ok(name, "this machine has a public address")
    else:
        yield warning(
            name,
            "all addresses of this machine are private, and webrtc.addresses is empty: clients "
            "elsewhere are told addresses that lead nowhere",
            "set webrtc.addresses to the address that clients reach; nothing, if they are all in "
            "this network",
        )
