"""Talk to real and to bad MCP servers."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from server.config.tools import McpServer, McpSettings
from server.mcp.client import call_tool, list_tools
from server.mcp.errors import McpFailure
from server.mcp.servers import HttpTarget, target_of
from server.protocol.settings.mcp import McpTool
from tests.server.mcp.serving import answering, json_answer, serving, weather_server

SETTINGS = McpSettings(list_timeout_s=20, call_timeout_s=20)
Answer = tuple[int, dict[str, str], bytes]


def target(url: str, transport: Any = "auto", *, is_trusted: bool = True, **headers: str) -> Any:
    """Return where a server is."""
    return HttpTarget(url, transport, tuple(headers.items()), is_trusted)


@pytest.mark.parametrize("transport", ["auto", "http"])
async def test_streamable_http(transport: str) -> None:
    """Tools are listed with their schemas and annotations, and called."""
    async with serving(weather_server().streamable_http_app()) as url:
        there = target(f"{url}/mcp", transport)
        tools = {tool.name: tool for tool in await list_tools(there, SETTINGS)}
        assert list(tools) == ["get_weather", "delete_city", "break_down"]
        assert tools["get_weather"].is_read_only
        assert not tools["delete_city"].is_read_only
        assert tools["get_weather"].input_schema["required"] == ["city"]
        assert tools["get_weather"].description == "Look up the weather of a city."
        assert await call_tool(there, "get_weather", '{"city":"rome"}', SETTINGS) == "rain in rome"


@pytest.mark.parametrize("transport", ["auto", "sse"])
async def test_sse(transport: str) -> None:
    """So they are from a server that speaks SSE only, told or found out."""
    async with serving(weather_server().sse_app()) as url:
        there = target(f"{url}/sse", transport)
        assert len(await list_tools(there, SETTINGS)) == 3
        assert await call_tool(there, "get_weather", '{"city":"oslo"}', SETTINGS) == "rain in oslo"


async def test_process(tmp_path: Path) -> None:
    """So they are from a process of this machine, which the operator names."""
    program = tmp_path / "server.py"
    program.write_text(
        "from tests.server.mcp.serving import weather_server\nweather_server().run('stdio')\n"
    )
    root = str(Path(__file__).parents[3])
    named = McpServer(command=(sys.executable, str(program)), env={"PYTHONPATH": root})
    settings = SETTINGS.model_copy(update={"servers": {"files": named}})
    there = target_of(McpTool("files"), settings)
    assert await call_tool(there, "get_weather", '{"city":"bonn"}', settings) == "rain in bonn"


async def test_a_tool_that_fails() -> None:
    """What a tool says of its failure is told as the tool's."""
    async with serving(weather_server().streamable_http_app()) as url:
        with pytest.raises(McpFailure, match="it broke") as caught:
            await call_tool(target(f"{url}/mcp"), "break_down", "{}", SETTINGS)
    assert caught.value.error.kind == "tool_execution_error"


async def test_a_tool_that_is_not_there() -> None:
    """A tool that the server does not have is an error."""
    async with serving(weather_server().streamable_http_app()) as url:
        with pytest.raises(McpFailure) as caught:
            await call_tool(target(f"{url}/mcp"), "nothing", "{}", SETTINGS)
    assert "nothing" in caught.value.error.message


async def test_long_outputs_are_cut() -> None:
    """What a tool returns is bounded, and says so."""
    settings = SETTINGS.model_copy(update={"max_output_chars": 16})
    async with serving(weather_server().streamable_http_app()) as url:
        output = await call_tool(
            target(f"{url}/mcp"), "get_weather", json.dumps({"city": "x" * 30}), settings
        )
    assert output == "rain in xxxxxxxx… (22 more characters were cut off)"


async def refused(url: str, *, settings: McpSettings = SETTINGS, **how: Any) -> McpFailure:
    """List a server's tools, which must fail."""
    with pytest.raises(McpFailure) as caught:
        await list_tools(target(url, **how), settings)
    return caught.value


async def test_status() -> None:
    """A server that refuses by its status is an HTTP error with that status."""

    async def handler(_method: str, _path: str, _body: bytes) -> Answer:
        return 401, {"content-type": "application/json"}, b'{"error": "who are you"}'

    async with answering(handler) as url:
        failure = await refused(url)
    assert (failure.error.kind, failure.error.code) == ("http_error", 401)


async def test_nobody_listens() -> None:
    """A server that is not there is an HTTP error without one."""
    failure = await refused("http://127.0.0.1:9/mcp")
    assert failure.error.kind == "http_error"
    assert failure.error.message == "The server cannot be reached."


@pytest.mark.parametrize("status", [302, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    """Nothing is sent where a redirect leads, and least of all the token."""
    elsewhere: list[str] = []

    async def other(_method: str, path: str, body: bytes) -> Answer:
        elsewhere.append(path)
        return json_answer(body, {})

    async with answering(other) as inside:

        async def handler(_method: str, _path: str, _body: bytes) -> Answer:
            return status, {"location": inside}, b""

        async with answering(handler) as url:
            failure = await refused(url, authorization="Bearer secret")
    assert "not followed" in failure.error.message
    assert "127.0.0.1" not in failure.error.message
    assert not elsewhere


async def test_redirects_within_the_server_are_checked_again() -> None:
    """A redirect that stays there is followed, through the same guard."""
    paths: list[str] = []

    async def handler(_method: str, path: str, _body: bytes) -> Answer:
        paths.append(path)
        if path == "/mcp":
            return 307, {"location": "/mcp/"}, b""
        return 500, {}, b""

    async with answering(handler) as url:
        failure = await refused(url, transport="http")
    assert paths[:2] == ["/mcp", "/mcp/"]
    assert failure.error.code == 500


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "10.0.0.1"])
async def test_addresses_that_are_not_public(host: str) -> None:
    """A server that a client names is reached by public addresses only."""
    failure = await refused(f"http://{host}:9/mcp", is_trusted=False)
    assert failure.error.message == "The server's name leads to an address that is not public."


async def test_the_address_that_was_checked_is_the_one_that_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name that leads elsewhere when it is asked again leads nowhere."""
    loop = asyncio.get_running_loop()
    asked: list[str] = []

    async def rebinding(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        address = "192.0.2.1" if len(asked) == 1 else "127.0.0.1"
        return [(2, 1, 6, "", (address, port))]

    monkeypatch.setattr(loop, "getaddrinfo", rebinding)
    monkeypatch.setattr("server.mcp.guard.is_public", lambda address: address == "192.0.2.1")
    connected: list[str] = []

    async def connect(_self: Any, request: Any) -> Any:
        connected.append(request.url.host)
        assert request.headers["host"] == "mcp.example.com:8443"
        assert request.extensions["sni_hostname"] == "mcp.example.com"
        raise OSError("not today")

    monkeypatch.setattr("httpx2.AsyncHTTPTransport.handle_async_request", connect)
    await refused("https://mcp.example.com:8443/mcp", is_trusted=False)
    assert asked
    assert set(connected) <= {"192.0.2.1"}


async def test_a_server_that_never_answers() -> None:
    """It is left after a while."""

    async def handler(_method: str, _path: str, _body: bytes) -> Answer:
        await asyncio.sleep(60)
        return 200, {}, b""

    settings = SETTINGS.model_copy(update={"list_timeout_s": 0.05})
    async with answering(handler) as url:
        failure = await refused(url, settings=settings)
    assert failure.error.message == "The server did not answer within 0.05 s."


async def test_a_server_that_says_too_much() -> None:
    """It is left when its answers are too large together."""

    async def handler(_method: str, _path: str, body: bytes) -> Answer:
        return json_answer(body, {"padding": "x" * 5_000})

    settings = SETTINGS.model_copy(update={"max_bytes": 1_024})
    async with answering(handler) as url:
        failure = await refused(url, settings=settings)
    assert failure.error.message == "The server sent more than 1024 bytes, and was left."


async def test_a_server_that_compresses() -> None:
    """What is compressed is not unpacked, however small it looks."""

    async def handler(_method: str, _path: str, body: bytes) -> Answer:
        status, headers, answer = json_answer(body, {})
        return status, {**headers, "content-encoding": "gzip"}, answer

    async with answering(handler) as url:
        failure = await refused(url)
    assert failure.error.message == "The server compresses, though it was asked not to."


@pytest.mark.parametrize(
    "answer",
    [
        (200, {"content-type": "text/html"}, b"<html>hello</html>"),
        (200, {"content-type": "application/json"}, b"[" * 100_000),
        (200, {"content-type": "application/json"}, b'{"jsonrpc": "2.0"}'),
        (200, {"content-type": "text/event-stream"}, b"data: no\n\n"),
        (202, {}, b""),
    ],
)
async def test_wrong_protocol(answer: Answer) -> None:
    """A server that speaks something else is told as such, and soon."""

    async def handler(_method: str, _path: str, _body: bytes) -> Answer:
        return answer

    async with answering(handler) as url:
        failure = await refused(url)
    assert failure.error.kind == "protocol_error"


async def test_deep_schemas() -> None:
    """A schema that is nested too deeply to be handled refuses the listing."""
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(40):
        schema = {"type": "object", "properties": {"a": schema}}
    tool = {"name": "deep", "inputSchema": schema}

    async def handler(_method: str, _path: str, body: bytes) -> Answer:
        match json.loads(body).get("method"):
            case "initialize":
                info = {"name": "x", "version": "1"}
                version = json.loads(body)["params"]["protocolVersion"]
                return json_answer(
                    body,
                    {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info},
                )
            case "tools/list":
                return json_answer(body, {"tools": [tool]})
            case "server/discover":
                return 404, {}, b""
            case _:
                return 202, {}, b""

    async with answering(handler) as url:
        failure = await refused(url, transport="http")
    assert "nested too deeply" in failure.error.message


async def test_cancelling_leaves_nothing_behind() -> None:
    """A listing that is cancelled closes its connection."""
    gone = asyncio.Event()
    came = asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        came.set()
        while await reader.read(1 << 16):
            pass
        gone.set()
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    task = asyncio.create_task(list_tools(target(f"http://127.0.0.1:{port}/mcp"), SETTINGS))
    async with asyncio.timeout(20):
        await came.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await gone.wait()
    server.close()
