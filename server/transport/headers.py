"""Say to browsers what they may do with answers: headers on everything that is served."""

import ipaddress
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.config.server import is_loopback

# For answers that are no pages: nothing in them is run, framed, guessed at or kept. An answer with
# headers of its own, as the playground has, keeps them. Source: OWASP, "REST Security Cheat Sheet".
SAFE: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    # Other sites' scripts ask by CORS, for which this does not count (Fetch, section 3.7).
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_STARTS = ("http.response.start", "websocket.http.response.start")


class SafeHeaders:
    """Add them to every answer that lacks them: ASGI middleware.

    Args:
        app: that answers.
        hsts_s: how long browsers are to come by TLS only; 0 for not to say it.
    """

    def __init__(self, app: ASGIApp, hsts_s: int = 0) -> None:
        self._app = app
        self._hsts_s = hsts_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and its answer with the headers."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        is_secure = scope["scheme"] in ("https", "wss")
        has_hsts = self._hsts_s and is_secure and _is_name(Headers(scope=scope).get("host", ""))

        async def send_on(message: Message) -> None:
            if message["type"] in _STARTS:
                headers = MutableHeaders(scope=message)
                for name, value in SAFE.items():
                    headers.setdefault(name, value)
                if has_hsts:
                    headers["Strict-Transport-Security"] = f"max-age={self._hsts_s}"
            await send(message)

        await self._app(scope, receive, send_on)


def _is_name(host: str) -> bool:
    """Say whether a `Host` header has a name that stands for one server."""
    # RFC 6797, section 8.1.1: never for an address. `localhost` is shared: a header of one server
    # would hold for all servers on the machine.
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return bool(name) and not is_loopback(name)
    return False
