"""Carry HTTP to one MCP server, to addresses that may be reached, and not too much of it.

Everything that the `mcp` package sends goes through `GuardedTransport`. It looks the host up,
checks every address that is found, and connects to the very address that was checked: a name that
leads elsewhere a moment later (DNS rebinding) makes no difference. It serves one origin; a request
to any other, by whatever redirect, is refused.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from functools import cache

import httpx2

from server.mcp.addresses import is_public
from server.mcp.errors import McpFailure

# A server may be reachable by some of its addresses only.
_MAX_ADDRESSES = 4


@cache
def _trust() -> ssl.SSLContext:
    """Return the certificates that TLS trusts; reading them takes tens of milliseconds."""
    return httpx2.create_ssl_context(trust_env=False)


class GuardedTransport(httpx2.AsyncBaseTransport):
    """Reach one origin.

    Args:
        url: of the server; its scheme, host and port are the origin.
        is_trusted: whether the operator named the server: then any address is fine.
        max_bytes: of all answers together.

    Attributes:
        last_status: HTTP status of the newest answer; None before the first.
        last_is_json: whether that answer was JSON, in which a server may say more than by a status.
        refusal: why it carried something not, or not to its end; the package on top of it may
            have taken that for a broken connection.
    """

    def __init__(self, url: str, *, is_trusted: bool, max_bytes: int) -> None:
        self._origin = _origin(httpx2.URL(url))
        self._is_trusted = is_trusted
        self._bytes_left = max_bytes
        self._max_bytes = max_bytes
        self._inner = httpx2.AsyncHTTPTransport(verify=_trust(), trust_env=False, retries=0)
        self.last_status: int | None = None
        self.last_is_json = False
        self.refusal: McpFailure | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request to the origin, at an address that was checked.

        Raises:
            McpFailure: it goes to another origin, or to an address that is not allowed.
            httpx2.TransportError: the server cannot be reached.
        """
        # A redirect would send the token and all headers to another server.
        if _origin(request.url) != self._origin:
            raise self.refused(
                McpFailure.http(0, "The server leads to another one, which is not followed.")
            )
        # Compressed data may become a thousand times larger when it is read.
        request.headers["accept-encoding"] = "identity"
        addresses = await self._addresses(request.url.host, _port(request.url))
        error: httpx2.ConnectError | httpx2.ConnectTimeout | None = None
        for address in addresses[:_MAX_ADDRESSES]:
            try:
                response = await self._inner.handle_async_request(_at(request, address))
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as failed:
                error = failed
                continue
            return self._bounded(response)
        assert error is not None, "there is at least one address"
        raise error

    async def _addresses(self, host: str, port: int) -> list[str]:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            unknown = McpFailure.http(0, "The server's name cannot be resolved.")
            raise self.refused(unknown) from None
        addresses = [*dict.fromkeys(str(each[4][0]) for each in found)]
        # All addresses are checked, not only the one that would be used: a name that also leads to
        # an inner network is not trusted.
        if not self._is_trusted and not all(map(is_public, addresses)):
            # The address is not told, since it would show what our own network looks like.
            raise self.refused(
                McpFailure.http(0, "The server's name leads to an address that is not public.")
            )
        return addresses

    def _bounded(self, response: httpx2.Response) -> httpx2.Response:
        self.last_status = response.status_code
        kind = response.headers.get("content-type", "")
        self.last_is_json = kind.lower().startswith("application/json")
        encoding = response.headers.get("content-encoding", "identity")
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        stream = _Bounded(response.stream, self, is_plain=encoding.lower() == "identity")
        return httpx2.Response(
            response.status_code,
            headers=response.headers,
            stream=stream,
            extensions=response.extensions,
        )

    def take(self, num_bytes: int) -> None:
        """Count bytes of an answer.

        Raises:
            McpFailure: they are too many.
        """
        self._bytes_left -= num_bytes
        if self._bytes_left < 0:
            raise self.refused(
                McpFailure.protocol(
                    0, f"The server sent more than {self._max_bytes} bytes, and was left."
                )
            )

    def refused(self, failure: McpFailure) -> McpFailure:
        """Note why a request is refused, and return the failure; the first reason is kept."""
        self.refusal = self.refusal or failure
        return failure

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


class _Bounded(httpx2.AsyncByteStream):
    """Count what passes."""

    def __init__(
        self, stream: httpx2.AsyncByteStream, transport: GuardedTransport, *, is_plain: bool
    ) -> None:
        self._stream = stream
        self._transport = transport
        self._is_plain = is_plain

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the bytes."""
        if not self._is_plain:
            raise self._transport.refused(
                McpFailure.protocol(0, "The server compresses, though it was asked not to.")
            )
        async for chunk in self._stream:
            self._transport.take(len(chunk))
            yield chunk

    async def aclose(self) -> None:
        """Read no more."""
        await self._stream.aclose()


def _origin(url: httpx2.URL) -> tuple[str, str, int]:
    return url.scheme, url.host.rstrip("."), _port(url)


def _port(url: httpx2.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _at(request: httpx2.Request, address: str) -> httpx2.Request:
    """Return a request that goes to an address; its host stays, in header and in TLS."""
    extensions = dict(request.extensions)
    if request.url.scheme == "https":
        # The name for TLS: the certificate is checked against what was asked for, not against a
        # number (RFC 6066, section 3).
        extensions["sni_hostname"] = request.url.host
    # The `Host` header was set when the request was made.
    return httpx2.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions=extensions,
    )
