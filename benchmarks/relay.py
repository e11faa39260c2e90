"""A bad network between a caller and the server: a UDP relay that loses, delays and reorders.

What happens to the n-th media packet of a direction follows from a seed alone.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Weather:
    """Say what happens to packets.

    Attributes:
        loss: share of packets that are lost.
        jitter_s: by how much each may be late, at most; later ones overtake it.
    """

    loss: float = 0.0
    jitter_s: float = 0.0
    seed: int = 0
    num_lost: int = 0
    num_passed: int = 0
    _draws: dict[str, random.Random] = field(default_factory=dict)

    def delay_s(self, direction: str) -> float | None:
        """Return how late the next packet of a direction is, None if it is lost."""
        draw = self._draws.setdefault(
            direction,
            random.Random(f"{self.seed} {direction}"),  # noqa: S311 - the same weather each time
        )
        # Both are drawn for every packet, lost or not: the n-th packet has the same fate in every
        # run.
        is_lost, delay_s = draw.random() < self.loss, draw.uniform(0, self.jitter_s)
        self.num_lost += is_lost
        self.num_passed += not is_lost
        return None if is_lost else delay_s


class _Port(asyncio.DatagramProtocol):
    def __init__(self, relay: "Relay", direction: str) -> None:
        self._relay = relay
        self._direction = direction

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._relay.passed(self._direction, data, addr)


class Relay:
    """Stand between one caller and the server.

    Attributes:
        port: that the server advertises as its own.
    """

    def __init__(self, weather: Weather) -> None:
        self._weather = weather
        self._inside: asyncio.DatagramTransport | None = None
        self._outside: asyncio.DatagramTransport | None = None
        self._caller: tuple[str, int] | None = None
        self._server: tuple[str, int] | None = None
        self.port = 0

    async def open(self) -> None:
        """Take both ports."""
        loop = asyncio.get_running_loop()
        local = ("127.0.0.1", 0)
        self._outside, _ = await loop.create_datagram_endpoint(
            lambda: _Port(self, "up"), local_addr=local
        )
        await self.rebind()
        self.port = self._outside.get_extra_info("sockname")[1]

    def lead_to(self, port: int) -> None:
        """Say where the server is."""
        self._server = ("127.0.0.1", port)

    async def rebind(self) -> None:
        """Be another address to the server from now on, as a NAT that forgets is."""
        if self._inside is not None:
            self._inside.close()
        self._inside, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Port(self, "down"), local_addr=("127.0.0.1", 0)
        )

    def close(self) -> None:
        """Give the ports back."""
        for transport in (self._inside, self._outside):
            assert transport is not None
            transport.close()

    def passed(self, direction: str, data: bytes, addr: tuple[str, int]) -> None:
        """Take a datagram."""
        if direction == "up":
            # As a NAT does: answers go to whoever sent last.
            self._caller = addr
        # Media and messages have bad weather; connecting is another test's matter.
        # The first byte tells what it is: below 20 it is STUN (RFC 7983, section 7).
        delay_s = self._weather.delay_s(direction) if data[0] >= 20 else 0.0
        if delay_s is not None:
            asyncio.get_running_loop().call_later(delay_s, self._deliver, direction, data)

    def _deliver(self, direction: str, data: bytes) -> None:
        transport = self._inside if direction == "up" else self._outside
        target = self._server if direction == "up" else self._caller
        if transport is not None and target is not None and not transport.is_closing():
            transport.sendto(data, target)


@asynccontextmanager
async def relaying(weather: Weather) -> AsyncIterator[Relay]:
    """Open a relay, and close it."""
    relay = Relay(weather)
    await relay.open()
    try:
        yield relay
    finally:
        relay.close()
