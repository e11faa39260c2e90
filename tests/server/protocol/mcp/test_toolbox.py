"""Offer the tools of servers under names that an engine can use."""

from server.protocol.items.mcp import ListedTool
from server.protocol.mcp.toolbox import Listings
from server.protocol.settings.mcp import McpChoice, McpTool, ToolFilter
from server.protocol.settings.tools import AnyTool, FunctionTool, NamedFunction

ONE, TWO = McpTool("one"), McpTool("two")
LOOK = ListedTool("look", {"type": "object"}, annotations={"readOnlyHint": True})
TOOLS: list[AnyTool] = [FunctionTool("do"), ONE, TWO]


def listings() -> Listings:
    """Return what two servers have."""
    do, odd = ListedTool("do", {}), ListedTool("a.b/c", {})
    return Listings({ONE.source: (LOOK, do), TWO.source: (LOOK, do, odd)})


def test_names_are_unique() -> None:
    """A name that is taken has its server's label before it, and odd characters go."""
    box = listings().toolbox(TOOLS, "auto", is_in_band=True)
    assert [tool.name for tool in box.tools] == [
        *("do", "look", "one_do", "two_look", "two_do", "a_b_c")
    ]
    assert box.choice == "auto"
    assert box.offered["two_do"].tool.name == "do"


def test_choices() -> None:
    """One tool, one server, one function; or nothing, and then nothing is required."""

    def names(choice: NamedFunction | McpChoice) -> tuple[list[str], str]:
        box = listings().toolbox(TOOLS, choice, is_in_band=True)
        return [tool.name for tool in box.tools], box.choice

    assert names(McpChoice("one")) == (["look", "one_do"], "required")
    assert names(McpChoice("two", "do")) == (["two_do"], "required")
    assert names(McpChoice("two", "nothing")) == ([], "none")
    assert names(NamedFunction("do")) == (["do"], "required")


def test_what_is_allowed_and_where() -> None:
    """By name, by annotation; and out of band nothing of a server's."""
    reads = McpTool("one", allowed=ToolFilter(read_only=True))
    box = listings().toolbox([reads], "auto", is_in_band=True)
    assert list(box.offered) == ["look"]
    assert not listings().toolbox([reads], "required", is_in_band=False).tools
