"""Run MCP servers on loopback: a good one, made with the `mcp` package, and bad ones."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations

Handler = Callable[[str, str, bytes], Awaitable[tuple[int, dict[str, str], bytes]]]


def weather_server() -> MCPServer:
    """Make a server with a tool that reads, one that destroys, and one that fails."""
    server = MCPServer("weather")

    @server.tool(annotations=ToolAnnotations(read_only_hint=True), structured_output=False)
    def get_weather(city: str) -> str:
        """Look up the weather of a city."""
        return f"rain in {city}"

    @server.tool(annotations=ToolAnnotations(destructive_hint=True), structured_output=False)
    def delete_city(city: str, sure: bool = False) -> str:
        """Delete a city."""
        return f"{city} is gone, {sure}"

    @server.tool(structured_output=False)
    def break_down() -> str:
        """Fail."""
        raise ToolError("it broke")

    return server


@contextlib.asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """Serve an ASGI application on a free port, and yield its URL without a path."""
    config = uvicorn.Config(
        app, port=0, log_config=None, lifespan="on", timeout_graceful_shutdown=1, ws="none"
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.005)
        assert not task.done(), "the server did not start"
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task


@contextlib.asynccontextmanager
async def answering(handler: Handler) -> AsyncIterator[str]:
    """Serve HTTP by hand: a handler takes method, path and body, and returns an answer."""
    tasks: set[asyncio.Task[Any]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await talk(reader, writer)
        finally:
            writer.transport.abort()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                method, path, _ = line.decode().split()
                num_bytes = 0
                while (header := (await reader.readline()).decode().strip()) != "":
                    name, _, value = header.partition(":")
                    num_bytes = int(value) if name.lower() == "content-length" else num_bytes
                body = await reader.readexactly(num_bytes)
                status, headers, answer = await handler(method, path, body)
                headers = {"content-length": str(len(answer)), **headers}
                lines = [f"HTTP/1.1 {status} x", *(f"{k}: {v}" for k, v in headers.items())]
                writer.write("\r\n".join([*lines, "", ""]).encode() + answer)
                await writer.drain()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def json_answer(body: bytes, result: Any) -> tuple[int, dict[str, str], bytes]:
    """Answer a JSON-RPC request."""
    answer = {"jsonrpc": "2.0", "id": json.loads(body).get("id"), "result": result}
    return 200, {"content-type": "application/json"}, json.dumps(answer).encode()
