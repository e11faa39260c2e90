"""Bound the connections that have no session.

A connection has a place from its first byte until it ends or becomes a session, which has bounds of
its own. So whoever has no key can neither use up the descriptors nor be in anybody's way for long.
"""

import ipaddress
from collections import Counter
from dataclasses import dataclass

_IPV6_PREFIX = 64  # one customer's network: addresses in it cost nothing


def neighbourhood(host: str | None) -> str:
    """Return what counts as one address: of IPv6 its /64, of anything unreadable itself."""
    try:
        # A zone (`fe80::1%eth0`) names an interface of this machine, not another peer (RFC 4007,
        # section 11).
        address = ipaddress.ip_address((host or "").partition("%")[0])
    except ValueError:
        return host or ""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    # ::ffff:192.0.2.1 is how a socket for both shows an IPv4 peer (RFC 4291, section 2.5.5.2).
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))


@dataclass(slots=True, eq=False)
class Place:
    """Stand for one connection; leaving twice is leaving once."""

    _places: "Places"
    _address: str
    _is_taken: bool = True

    def leave(self) -> None:
        """Give the place back."""
        if self._is_taken:
            self._is_taken = False
            self._places.give_back(self._address)


class Places:
    """Give places to connections, in the event loop.

    Args:
        max_all: places for everybody.
        max_each: places for one address.
    """

    def __init__(self, max_all: int, max_each: int) -> None:
        self._max_all = max_all
        self._max_each = max_each
        self._taken: Counter[str] = Counter()
        self.num_taken = 0
        self.num_refused = 0

    def enter(self, host: str | None) -> Place | None:
        """Take a place for a peer; None if there is none."""
        address = neighbourhood(host)
        # For example, with 512 places and 64 for each address: somebody who opens 1,000 connections
        # gets 64, and 448 are left for everybody else.
        if self.num_taken >= self._max_all or self._taken[address] >= self._max_each:
            self.num_refused += 1
            if not self._taken[address]:
                del self._taken[address]
            return None
        self._taken[address] += 1
        self.num_taken += 1
        return Place(self, address)

    def give_back(self, address: str) -> None:
        """Count one connection less; for `Place` only."""
        self.num_taken -= 1
        self._taken[address] -= 1
        if not self._taken[address]:
            del self._taken[address]
