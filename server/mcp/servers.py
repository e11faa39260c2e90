"""Find the server that a client means, if it may be reached."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from server.config.tools import McpServer, McpSettings
from server.mcp.errors import McpFailure
from server.protocol.settings.mcp import McpTool

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """A server that is reached by a URL.

    Attributes:
        is_trusted: whether the operator named it: then it may be at any address.
    """

    url: str
    transport: Literal["auto", "http", "sse"]
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    is_trusted: bool


@dataclass(frozen=True, slots=True)
class ProcessTarget:
    """A server that is a process of this machine, which only the operator can name."""

    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = field(repr=False)
    cwd: Path | None


Target = HttpTarget | ProcessTarget


def target_of(tool: McpTool, settings: McpSettings) -> Target:
    """Return the server that a tool means.

    A label of the operator's stands for the operator's server, when the client names no URL, or the
    same. It is sent the operator's headers: those of clients might mean something to a server that
    trusts us. Only where the operator gives no token, the client's is sent. Any other URL has to be
    allowed.

    Raises:
        McpFailure: there is no such server, or it may not be named.
    """
    configured = settings.servers.get(tool.label)
    if configured is not None and tool.url in (None, configured.url):
        if configured.url is None:
            env = tuple(configured.env.items())
            return ProcessTarget(configured.command, env, configured.cwd)
        headers = _own_headers(configured)
        if tool.authorization is not None:
            headers.setdefault("authorization", _bearer(tool.authorization))
        way = configured.transport
        return HttpTarget(configured.url, way, tuple(headers.items()), is_trusted=True)
    if tool.url is None:
        raise McpFailure.http(
            0, f"No server is configured under the label '{tool.label}', and no URL is given."
        )
    if not is_allowed(tool.url, settings.allowed):
        raise McpFailure.http(0, "This server may not be named: its URL is not on the allow-list.")
    return HttpTarget(tool.url, "auto", tuple(_headers(tool).items()), is_trusted=False)


def is_allowed(url: str, allowed: tuple[str, ...]) -> bool:
    """Say whether clients may name a URL; entries are described at `McpSettings.allowed`."""
    parts = urlsplit(url)
    return any(_fits(parts, entry) for entry in allowed)


def _fits(url: SplitResult, entry: str) -> bool:
    # Examples. `https://mcp.example.com/v1` allows this URL alone. `mcp.example.com` allows any
    # path of it, by https at port 443. `*.example.com` allows a.example.com and a.b.example.com,
    # and not example.com itself. `*` allows any host by https.
    if "://" in entry:
        whole = urlsplit(entry)
        return (*_place(url), url.path or "/", url.query) == (
            *_place(whole),
            whole.path or "/",
            whole.query,
        )
    if url.scheme != "https":
        return False
    host, port = _place(url)[1:]
    if entry == "*":
        return True
    name, _, number = entry.lower().partition(":")
    if (int(number) if number.isdecimal() else 443) != port:
        return False
    if name.startswith("*."):
        # With the dot: `*.example.com` must not allow badexample.com.
        return host.endswith(name[1:])
    return host == name


def _place(url: SplitResult) -> tuple[str, str, int]:
    # "MCP.Example.com." is the same host (RFC 3986, section 3.2.2, and the root's dot of RFC 1034).
    host = (url.hostname or "").lower().rstrip(".")
    return url.scheme, host, url.port or _DEFAULT_PORTS.get(url.scheme, 0)


def _headers(tool: McpTool) -> dict[str, str]:
    """Return a client's headers, by lower-case names."""
    headers = {name.lower(): value for name, value in tool.headers.items()}
    if tool.authorization is not None:
        headers["authorization"] = _bearer(tool.authorization)
    return headers


def _own_headers(server: McpServer) -> dict[str, str]:
    headers = {name.lower(): value for name, value in server.headers.items()}
    if server.authorization is not None:
        headers["authorization"] = _bearer(server.authorization)
    return headers


def _bearer(token: str) -> str:
    """Return a token as a header has it; some clients write the scheme themselves."""
    return token if token.lower().startswith(("bearer ", "basic ")) else f"Bearer {token}"
