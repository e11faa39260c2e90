"""Carry out what sessions want: listings that are kept, bounds, ends."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from model.schemas.service import SchemaService
from server.config.tools import McpSettings
from server.mcp import desk as module
from server.mcp.audit import AuditLog
from server.mcp.desk import ToolDesk
from server.mcp.listings import ListingCache
from server.protocol.items.mcp import ListedTool
from server.protocol.mcp.outcomes import (
    CallTool,
    DropTool,
    ListTools,
    ToolFailed,
    ToolReturned,
    ToolsListed,
)
from server.protocol.settings.mcp import McpTool
from tests.fakes.clock import FakeTime

SERVER = McpTool("maps")
SETTINGS = McpSettings.model_validate({"servers": {"maps": {"url": "http://x/"}}, "max_calls": 2})
GOOD = ListedTool("good", {"type": "object", "properties": {"a": {"type": "string"}}})
BAD = ListedTool("bad", {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}})


@pytest.fixture
async def desk() -> AsyncIterator[ToolDesk]:
    """Make a desk."""
    service = SchemaService()
    yield ToolDesk(SETTINGS, service, AuditLog(None))
    await asyncio.to_thread(service.close)


async def test_listings_are_kept_and_schemas_checked(
    desk: ToolDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tool that cannot be called is left out; the second session asks nobody."""
    asked: list[Any] = []

    async def list_tools(target: Any, _settings: Any) -> tuple[ListedTool, ...]:
        asked.append(target)
        return GOOD, BAD

    monkeypatch.setattr(module, "list_tools", list_tools)
    for number in range(2):
        outcomes: asyncio.Queue[Any] = asyncio.Queue()
        tools = desk.for_session(f"sess_{number}", outcomes.put_nowait)
        tools.put(ListTools("mcpl_1", SERVER))
        assert await outcomes.get() == ToolsListed("mcpl_1", (GOOD,))
        await tools.close()
    assert len(asked) == 1


async def test_so_many_at_a_time_and_drops(desk: ToolDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others wait; what is dropped has no outcome; whatever is raised, the call ends."""
    going: list[str] = []
    free = asyncio.Event()

    async def call_tool(_target: Any, name: str, _arguments: str, _settings: Any) -> str:
        going.append(name)
        await free.wait()
        if name == "c":
            raise ZeroDivisionError
        return name

    monkeypatch.setattr(module, "call_tool", call_tool)
    outcomes: asyncio.Queue[Any] = asyncio.Queue()
    tools = desk.for_session("sess_1", outcomes.put_nowait)
    for name in "abcd":
        tools.put(CallTool(f"mcp_{name}", SERVER, name, "{}"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert going == ["a", "b"]
    tools.put(DropTool("mcp_a"))
    tools.put(DropTool("mcp_d"))
    free.set()
    ends = [await outcomes.get() for _ in range(2)]
    assert ends[0] == ToolReturned("mcp_b", "b")
    assert isinstance(ends[1], ToolFailed)
    assert ends[1].item_id == "mcp_c"
    await tools.close()
    assert outcomes.empty()


def test_listings_grow_old() -> None:
    """And with a lifetime of 0 none is kept."""
    time = FakeTime()
    cache = ListingCache(5.0, lambda: time.now_s)
    cache.put("a", (GOOD,))
    time.now_s += 4.9
    assert cache.get("a") == (GOOD,)
    time.now_s += 0.2
    assert cache.get("a") is None
    never = ListingCache(0.0, lambda: time.now_s)
    never.put("a", (GOOD,))
    assert never.get("a") is None
