"""Define what is asked of whoever speaks to MCP servers, and what comes back.

The protocol does no I/O: it puts a `ToolCommand` among its reactions, and takes the `ToolOutcome`
that follows from it as an input, whenever that is. A command that was dropped meanwhile has no
outcome, or one that is ignored.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from server.protocol.items.mcp import ListedTool, McpError
from server.protocol.settings.mcp import McpTool

# What is asked.


@dataclass(frozen=True, slots=True)
class ListTools:
    """Ask a server for its tools.

    Attributes:
        item_id: of the item that waits for them.
        server: to be asked.
    """

    item_id: str
    server: McpTool


@dataclass(frozen=True, slots=True)
class CallTool:
    """Call a tool.

    Attributes:
        item_id: of the call.
        server: that has the tool.
        name: of the tool, as its server has it.
        arguments: a JSON object as text.
    """

    item_id: str
    server: McpTool
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class DropTool:
    """Give up a listing or a call that is in progress: nobody waits for it any more."""

    item_id: str


What: TypeAlias = Literal[
    "approval requested",
    "approved",
    "denied",
    "timed out",
    "called",
    "completed",
    "failed",
    "dropped",
]


@dataclass(frozen=True, slots=True)
class Decision:
    """Say for the audit log what became of a call.

    Attributes:
        what: what became of it.
        item_id: of the call, or of the request to approve it.
        server_label: None for a function of the client's own.
        name: of the tool or function.
        arguments: as JSON text.
        reason: why, where that is known.
    """

    what: What
    item_id: str
    server_label: str | None
    name: str
    arguments: str
    reason: str | None = None


ToolCommand: TypeAlias = ListTools | CallTool | DropTool | Decision


# What comes back.


@dataclass(frozen=True, slots=True)
class ToolsListed:
    """The tools of a server have been listed."""

    item_id: str
    tools: tuple[ListedTool, ...]


@dataclass(frozen=True, slots=True)
class ListingFailed:
    """The tools of a server cannot be listed."""

    item_id: str
    error: McpError


@dataclass(frozen=True, slots=True)
class ToolReturned:
    """A call has returned something."""

    item_id: str
    output: str


@dataclass(frozen=True, slots=True)
class ToolFailed:
    """A call has failed."""

    item_id: str
    error: McpError


ToolOutcome: TypeAlias = ToolsListed | ListingFailed | ToolReturned | ToolFailed
