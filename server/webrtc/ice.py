"""Be the lite side of ICE (RFC 8445, section 2.5): answer checks, and follow the client's choice.

A lite agent gathers nothing, checks nothing and needs no candidates of the other side: it learns
where its client is from checks that carry the right password. So offers without candidates,
trickled ones and mDNS names (RFC 8828) are all the same to it. It needs an address that its
clients can reach.
"""

import asyncio
import secrets
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from aioice import stun

Address: TypeAlias = tuple[str, int] | tuple[str, int, int, int]
"""As sockets have them: IPv4's two parts or IPv6's four."""

# RFC 8445, section 5.3, asks for 24 random bits of the name at least; here are 32.
_UFRAG_CHARS = 8
_PASSWORD_CHARS = 32
# Addresses that one call may have been reached from; a client that has more is playing games.
_MAX_PATHS = 16
# Datagrams that wait for DTLS; 20 ms apart, that is more than five seconds.
_MAX_WAITING = 256
# Clients check a path they use every few seconds (RFC 7675).
_SILENT_PATH_S = 8.0
_COOKIE = struct.pack("!I", stun.COOKIE)


class Wire(Protocol):
    """Send datagrams to one address: a UDP socket and a peer, or a TCP connection."""

    def send(self, data: bytes) -> None:
        """Send one; where there is no room it is lost, as on any network."""
        ...


def is_stun(data: bytes) -> bool:
    """Say whether a datagram is STUN (RFC 7983)."""
    # The first byte tells them apart: 0 to 3 is STUN, 20 to 63 DTLS, 128 to 191 RTP and RTCP (RFC
    # 7983, section 7). STUN has its magic cookie besides (RFC 8489, section 5).
    return len(data) >= stun.HEADER_LENGTH and data[0] < 4 and data[4:8] == _COOKIE


def is_media(data: bytes) -> bool:
    """Say whether a datagram, which is not empty, is SRTP or SRTCP (RFC 7983)."""
    return 127 < data[0] < 192


@dataclass(frozen=True, slots=True)
class Credentials:
    """Hold what the two sides of ICE know each other by."""

    ufrag: str
    password: str

    @classmethod
    def made(cls) -> "Credentials":
        """Make up our own."""
        # Hexadecimal digits are ice-chars; 128 bits of password (RFC 8445, section 5.3).
        return cls(secrets.token_hex(_UFRAG_CHARS // 2), secrets.token_hex(_PASSWORD_CHARS // 2))


class IceAgent:
    """Hold one call's place on the network.

    It is what DTLS takes for a transport (`_recv`, `_send`, `role`).

    Args:
        local: our credentials.
        remote_ufrag: the client's.
        clock: seconds that do not jump.
    """

    role = "controlled"

    def __init__(
        self,
        local: Credentials,
        remote_ufrag: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.local = local
        self._user = f"{local.ufrag}:{remote_ufrag}"
        self._clock = clock
        self.is_reached = asyncio.Event()  # a check with the right password came
        self.last_check_s = clock()
        self.num_switches = 0  # of the path, after the first
        self.num_dropped = 0
        self.on_media: Callable[[bytes], None] | None = None
        """Takes SRTP and SRTCP as they come; None: they wait with everything else."""
        self._path: tuple[Wire, Address] | None = None
        self._path_checked_s = 0.0
        self._addresses: set[Address] = set()
        self._waiting: deque[bytes] = deque()
        self._has_waiting = asyncio.Event()
        self._is_closed = False

    def restart(self, local: Credentials, remote_ufrag: str) -> None:
        """Go on under new credentials (RFC 8445, section 9); the path stays until one replaces it.

        Args:
            local: our new credentials.
            remote_ufrag: the client's new one.
        """
        self.local = local
        self._user = f"{local.ufrag}:{remote_ufrag}"
        self.last_check_s = self._clock()

    def check(self, message: stun.Message, wire: Wire, address: Address) -> bool:
        """Answer a check; False if it is not from this call's client.

        Args:
            message: a binding request.
            wire: leads back to where it came from.
            address: where it came from.
        """
        # Of the receiver first, then of the sender (RFC 8445, section 7.2.2). For example, ours is
        # `1f2e3d4c` and the client's `QxZ1`: its checks say `1f2e3d4c:QxZ1`.
        is_user = message.attributes.get("USERNAME") == self._user
        if self._is_closed or not is_user or not self._has_password(message):
            return False
        if address not in self._addresses and len(self._addresses) >= _MAX_PATHS:
            return False
        self._addresses.add(address)
        # It says where the check came from as we see it, and is signed with our own password (RFC
        # 8445, section 7.3; RFC 8489, sections 14.2 and 14.5).
        answer = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, message.transaction_id)
        answer.attributes["XOR-MAPPED-ADDRESS"] = address[:2]
        answer.add_message_integrity(self.local.password.encode())
        wire.send(bytes(answer))
        self.last_check_s = self._clock()
        self._follow(wire, address, is_chosen="USE-CANDIDATE" in message.attributes)
        self.is_reached.set()
        return True

    def _has_password(self, message: stun.Message) -> bool:
        return bool(message.check_message_integrity(self.local.password.encode()))

    def _follow(self, wire: Wire, address: Address, *, is_chosen: bool) -> None:
        """Take the first path that works, then what the client chooses.

        A client whose address was changed on its way, and that does not choose again, is followed
        once its old path is silent.
        """
        # For example, a router forgets the port that it gave a client and gives it another one. The
        # client's ICE notices nothing and nominates nothing. 8 s without a check on the old path,
        # and the new one is taken. RFC 8445, section 7.3.2, has a lite agent wait for
        # USE-CANDIDATE. A call would be lost by that.
        now_s = self.last_check_s
        if self._path is not None and self._path[1] != address:
            if not is_chosen and now_s - self._path_checked_s < _SILENT_PATH_S:
                return
            self.num_switches += 1
        self._path, self._path_checked_s = (wire, address), now_s

    @property
    def addresses(self) -> frozenset[Address]:
        """Return where the client was seen."""
        return frozenset(self._addresses)

    def datagram(self, data: bytes) -> None:
        """Take what is not STUN."""
        if self.on_media is not None and is_media(data):
            self.on_media(data)
            return
        # The newest is lost, not the oldest: DTLS and SCTP send again what is missing, and sound is
        # of no use to a call that does not read for five seconds.
        if len(self._waiting) >= _MAX_WAITING:
            self.num_dropped += 1
            return
        self._waiting.append(data)
        self._has_waiting.set()

    def close(self) -> None:
        """Take nothing more; whoever waits for a datagram learns that there is none."""
        self._is_closed = True
        self._path = None
        self._waiting.clear()
        self._has_waiting.set()

    async def _recv(self) -> bytes:
        while not self._waiting:
            if self._is_closed:
                raise ConnectionError("the call is over")
            self._has_waiting.clear()
            await self._has_waiting.wait()
        return self._waiting.popleft()

    async def _send(self, data: bytes) -> None:
        if self._is_closed:
            raise ConnectionError("the call is over")
        if self._path is not None:
            self._path[0].send(data)
