"""List the tools of an MCP server, and call them, through the official `mcp` package.

Each listing and each call is a connection of its own, opened and closed in one task, within one
time limit and one allowance of bytes: nothing stays open after the call, and a call that fails does
not disturb others. A server of this machine's own is a process that is started for the call.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeVar

from server.config.tools import McpSettings
from server.errors import ClientError
from server.mcp.errors import McpFailure
from server.mcp.servers import HttpTarget, ProcessTarget, Target
from server.protocol.items.mcp import ListedTool
from server.protocol.wire.checks import refuse_deep

if TYPE_CHECKING:
    import httpx2
    from mcp import Client
    from mcp_types import CallToolResult, ContentBlock, Tool

    from server.mcp.guard import GuardedTransport

_T = TypeVar("_T")

# As many as a session may have functions: all of them are put before the model.
MAX_TOOLS = 128  # of one server
_MAX_NAME_CHARS = 128
_MAX_MESSAGE_CHARS = 1_000
# Source: MCP specification, "Pagination": a client follows cursors until there is none.
_MAX_PAGES = 32
_NOT_MCP = "The server does not speak MCP as it is specified."
# By these a server says that it does not speak streamable HTTP, but perhaps SSE (MCP specification,
# "Backwards Compatibility").
_OTHER_TRANSPORT = (400, 404, 405)


def load() -> None:
    """Load the package, which takes a second or more, before anybody waits for anything."""
    import server.mcp.guard  # noqa: F401, PLC0415


async def list_tools(target: Target, settings: McpSettings) -> tuple[ListedTool, ...]:
    """Return the tools of a server.

    Raises:
        McpFailure: they cannot be listed.
    """

    async def listed(client: "Client") -> tuple[ListedTool, ...]:
        tools: list[ListedTool] = []
        cursor: str | None = None
        for _ in range(_MAX_PAGES):
            page = await client.list_tools(cursor=cursor)
            tools += map(_listed, page.tools)
            if len(tools) > MAX_TOOLS:
                raise McpFailure.protocol(0, f"The server has more than {MAX_TOOLS} tools.")
            cursor = page.next_cursor
            if not cursor:
                # A name that is listed twice stands for the last of them; the model could not tell
                # them apart.
                return tuple({tool.name: tool for tool in tools}.values())
        raise McpFailure.protocol(0, "The server's list of tools has no end.")

    return await _with_client(target, settings, settings.list_timeout_s, listed)


async def call_tool(target: Target, name: str, arguments: str, settings: McpSettings) -> str:
    """Call a tool and return what it returned, as text.

    Args:
        target: the server.
        name: of the tool.
        arguments: a JSON object as text.
        settings: its bounds.

    Raises:
        McpFailure: it could not be called, or failed.
    """
    given = json.loads(arguments)
    assert isinstance(given, dict), "arguments follow a schema, and are an object"

    async def called(client: "Client") -> "CallToolResult":
        return await client.call_tool(name, given)

    result = await _with_client(target, settings, settings.call_timeout_s, called)
    output = _cut(_text(result), settings.max_output_chars)
    if result.is_error:
        raise McpFailure.tool(output or "The tool failed, and did not say why.")
    return output


async def _with_client(
    target: Target,
    settings: McpSettings,
    timeout_s: float,
    use: Callable[["Client"], Awaitable[_T]],
) -> _T:
    """Connect, do one thing, and disconnect; after a result a bad disconnect is ignored."""
    try:
        async with asyncio.timeout(timeout_s):
            if isinstance(target, ProcessTarget):
                return await _once(_process(target), None, use)
            return await _over_http(target, settings, use)
    except TimeoutError:
        raise McpFailure.http(0, f"The server did not answer within {timeout_s:g} s.") from None


async def _over_http(
    target: HttpTarget, settings: McpSettings, use: Callable[["Client"], Awaitable[_T]]
) -> _T:
    """Use a server by streamable HTTP or by SSE; find out which, if the settings do not say it."""
    if target.transport == "sse":
        return await _by(_sse, target, settings, use)
    try:
        return await _by(_streamable, target, settings, use)
    # MCP specification, "Backwards Compatibility": post first; where that is answered with 400, 404
    # or 405, it may be a server of the older transport, which is asked with GET.
    except McpFailure as failure:
        speaks_other = failure.error.kind == "http_error" and failure.error.code in _OTHER_TRANSPORT
        if target.transport == "http" or not speaks_other:
            raise
        first = failure
    try:
        return await _by(_sse, target, settings, use)
    except McpFailure:
        # What the first way said is the likelier reason: most servers speak streamable HTTP.
        raise first from None


async def _by(
    way: Callable[["GuardedTransport", HttpTarget, int], Any],
    target: HttpTarget,
    settings: McpSettings,
    use: Callable[["Client"], Awaitable[_T]],
) -> _T:
    from server.mcp.guard import GuardedTransport  # noqa: PLC0415 - loaded where it is used

    transport = GuardedTransport(
        target.url, is_trusted=target.is_trusted, max_bytes=settings.max_bytes
    )
    return await _once(way(transport, target, settings.max_bytes), transport, use)


async def _once(
    streams: Any, transport: "GuardedTransport | None", use: Callable[["Client"], Awaitable[_T]]
) -> _T:
    """Do one thing over streams of messages, and turn whatever goes wrong into a failure.

    Args:
        streams: what the package's client takes for a transport.
        transport: carries them, where they are HTTP.
        use: does it.
    """
    from mcp import Client  # noqa: PLC0415 - it and what it needs are loaded where they are used

    results: list[_T] = []
    try:
        async with Client(streams, client_info=_client_info(), cache=None) as client:
            results.append(await use(client))
    except Exception as error:  # noqa: BLE001 - a foreign server and a package may raise anything
        if not results:
            raise _failure(error, transport) from None
    # Once there is a result, it does not matter how the connection ends: some servers close it
    # without notice after their answer.
    return results[0]


def _failure(error: BaseException, transport: "GuardedTransport | None") -> McpFailure:
    """Say what went wrong, in words that hold nothing secret: neither headers nor addresses."""
    # From the surest cause to the least sure one: a refusal of our own, the server's status, then
    # the exception of the package.
    if transport is not None and transport.refusal is not None:
        return transport.refusal
    causes = list(_leaves(error))
    for cause in causes:
        if isinstance(cause, McpFailure):
            return cause
    refused = None if transport is None else _refused_by_status(transport)
    if refused is not None:
        return refused
    told = next((each for each in map(_told, causes) if each is not None), None)
    if told is not None:
        return told
    return McpFailure.protocol(0, f"The connection to the server broke ({type(error).__name__}).")


def _told(cause: BaseException) -> McpFailure | None:
    """Return what an error means for the call, None if that is not known."""
    import httpx2  # noqa: PLC0415 - see `_once`
    from mcp import MCPError  # noqa: PLC0415
    from mcp_types import PARSE_ERROR  # noqa: PLC0415
    from pydantic import ValidationError  # noqa: PLC0415

    match cause:
        case MCPError(code=code) if code == PARSE_ERROR:
            # The package's message quotes all that the server sent.
            return McpFailure.protocol(code, _NOT_MCP)
        case MCPError():
            return McpFailure.protocol(cause.code, _cut(cause.message, _MAX_MESSAGE_CHARS))
        case httpx2.TimeoutException():
            return McpFailure.http(0, "The server did not answer in time.")
        case httpx2.TransportError():
            return McpFailure.http(0, "The server cannot be reached.")
        case ValidationError() | ValueError() | RecursionError():
            return McpFailure.protocol(0, _NOT_MCP)
        case OSError():
            return McpFailure.http(0, "The server's process cannot be started.")
        case _:
            return None


def _refused_by_status(transport: "GuardedTransport") -> McpFailure | None:
    """Say that the server refused by its status; None if it did not, or said more than that."""
    # For example, 401 says "not with this token", and the package may report a broken stream. The
    # status is what helps whoever reads the error.
    status = transport.last_status or 0
    if 300 <= status < 400:
        return McpFailure.http(status, "The server leads to another one, which is not followed.")
    # An error of the protocol may come with one of these, in JSON.
    says_more = transport.last_is_json and status in _OTHER_TRANSPORT
    if status < 400 or says_more:
        return None
    return McpFailure.http(status, f"The server answered with HTTP status {status}.")


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _client_info() -> Any:
    from mcp_types import Implementation  # noqa: PLC0415 - see `_once`

    return Implementation(name="parley", version=version("parley"))


# Ways to a server: streams of messages, as the package's client takes them.


@contextlib.asynccontextmanager
async def _streamable(
    transport: "GuardedTransport", target: HttpTarget, max_bytes: int
) -> AsyncIterator[Any]:
    from mcp.client.streamable_http import streamable_http_client  # noqa: PLC0415 - see `_once`

    async with (
        _http_client(transport, target) as client,
        streamable_http_client(
            target.url, http_client=client, max_sse_event_size=max_bytes
        ) as streams,
    ):
        yield streams


@contextlib.asynccontextmanager
async def _sse(
    transport: "GuardedTransport", target: HttpTarget, _max_bytes: int
) -> AsyncIterator[Any]:
    from mcp.client.sse import sse_client  # noqa: PLC0415 - see `_once`

    def client(
        headers: dict[str, str] | None = None,
        timeout: "httpx2.Timeout | None" = None,
        auth: "httpx2.Auth | None" = None,
    ) -> "httpx2.AsyncClient":
        del headers, timeout, auth
        return _http_client(transport, target)

    async with sse_client(target.url, httpx_client_factory=client) as streams:
        yield streams


def _http_client(transport: "GuardedTransport", target: HttpTarget) -> "httpx2.AsyncClient":
    import httpx2  # noqa: PLC0415 - see `_once`

    # Whoever calls bounds the time. Proxies of the environment would go around the transport.
    return httpx2.AsyncClient(
        transport=transport, headers=dict(target.headers), timeout=None, trust_env=False
    )


@contextlib.asynccontextmanager
async def _process(target: ProcessTarget) -> AsyncIterator[Any]:
    from mcp import StdioServerParameters  # noqa: PLC0415 - see `_once`
    from mcp.client.stdio import stdio_client  # noqa: PLC0415

    program, *arguments = target.command
    parameters = StdioServerParameters(
        command=program, args=arguments, env=dict(target.env), cwd=target.cwd
    )
    async with stdio_client(parameters) as streams:
        yield streams


# What comes back.


def _listed(tool: "Tool") -> ListedTool:
    """Return a tool of a listing.

    Raises:
        McpFailure: it cannot be one.
    """
    if not tool.name or len(tool.name) > _MAX_NAME_CHARS or not tool.name.isprintable():
        raise McpFailure.protocol(0, "The server lists a tool whose name cannot be one.")
    annotations = tool.annotations
    written = None if annotations is None else _json(annotations)
    try:
        refuse_deep(tool.input_schema, "input_schema")
    except ClientError:
        raise McpFailure.protocol(0, f"The schema of '{tool.name}' is nested too deeply.") from None
    return ListedTool(tool.name, tool.input_schema, tool.description, written)


def _json(model: Any) -> Any:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def _text(result: "CallToolResult") -> str:
    """Return what a call returned as text: what there is none for is named."""
    parts = [_block_text(block) for block in result.content]
    if not parts and result.structured_content is not None:
        return json.dumps(result.structured_content, ensure_ascii=False)
    return "\n".join(parts)


def _block_text(block: "ContentBlock") -> str:
    written = _json(block)
    match written:
        case {"type": "text", "text": str() as text}:
            return text
        case {"type": "resource", "resource": {"text": str() as text}}:
            return text
        case {"type": "resource_link", "uri": uri}:
            return str(uri)
        case {"type": kind, "mimeType": mime_type}:
            # A picture or a sound cannot be read aloud, but the model can say that there was one.
            return f"[{kind}, {mime_type}]"
        case _:
            return f"[{written.get('type')}]"


def _cut(text: str, max_chars: int) -> str:
    """Return a text that is not longer than it may be, and says so where it was."""
    # Half a surrogate pair is no text and cannot be sent.
    text = text.encode("utf-8", "replace").decode("utf-8")
    if len(text) <= max_chars:
        return text
    return f"{text[:max_chars]}… ({len(text) - max_chars} more characters were cut off)"
