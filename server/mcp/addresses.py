"""Say which addresses belong to the public internet.

A URL that a client names must not lead the server to its own machine, to its neighbours, or to what
a cloud tells its machines (169.254.169.254 and its like).
"""

import ipaddress

_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052
_IPV4_COMPATIBLE = ipaddress.ip_network("::/96")  # RFC 4291, deprecated


def is_public(address: str) -> bool:
    """Say whether an address is one of the public internet, and so is every address within it.

    IPv6 can carry an IPv4 address (mapped, 6to4, Teredo, NAT64), and what is behind it may route
    by that one.

    Args:
        address: as text, such as `getaddrinfo` returns; a zone (`%eth0`) may follow.

    Returns:
        False also for what is no address.
    """
    try:
        given = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    # For example, 64:ff9b::a00:1 looks like the internet and is 10.0.0.1 behind a NAT64 (RFC 6052,
    # section 2.1). ::ffff:127.0.0.1 is this machine.
    return all(_is_global(each) for each in (given, *_carried(given)))


def _is_global(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return True  # what it carries decides
    if isinstance(address, ipaddress.IPv6Address) and address in _NAT64:
        return True
    # `is_global` follows IANA's registries of special-purpose addresses (RFC 6890), where multicast
    # is not listed.
    is_special = address.is_multicast or address.is_reserved or address.is_unspecified
    return address.is_global and not is_special


def _carried(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> list[ipaddress.IPv4Address]:
    """Return the IPv4 addresses that an IPv6 address carries."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    # 2002:7f00:1:: is 6to4 of 127.0.0.1 (RFC 3056, section 2). Teredo carries two: its server's and
    # its client's (RFC 4380, section 4).
    carried = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64 or address in _IPV4_COMPATIBLE:
        carried.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [each for each in carried if each is not None]
