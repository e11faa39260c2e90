"""Define what is asked of whoever speaks to MCP servers, and what comes back.

The protocol does no I/O: it puts a `ToolCommand` among its reactions, and takes the `ToolOutcome`
that follows from it as an input, whenever that is. What was dropped meanwhile has no outcome any
more, or one that changes nothing.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from server.protocol.settings.mcp import McpTool
from server.protocol.wire.checks import JsonObject


@dataclass(frozen=True, slots=True)
class McpError:
    """Say how a call failed, as the API does.

    Attributes:
        kind: "tool_execution_error" is what the tool itself says.
        message: for the model and for a person.
        code: of JSON-RPC or HTTP; a tool's own error has none.
    """

    kind: Literal["protocol_error", "tool_execution_error", "http_error"]
    message: str
    code: int | None = None

    def to_json(self) -> JsonObject:
        """Write the error as the API does."""
        written: JsonObject = {"type": self.kind, "message": self.message}
        if self.kind != "tool_execution_error":
            written["code"] = self.code or 0
        return written


@dataclass(frozen=True, slots=True)
class ListedTool:
    """Describe a tool of a server.

    Attributes:
        name: as the server has it; not every one is a function's.
        input_schema: JSON schema of its arguments.
        description: None where the server gave none.
        annotations: what the server says of it, such as `readOnlyHint`; None for nothing.
    """

    name: str
    input_schema: JsonObject
    description: str | None = None
    annotations: JsonObject | None = None

    def to_json(self) -> JsonObject:
        """Write the tool with only the keys that were given: clients refuse null."""
        written: JsonObject = {"name": self.name, "input_schema": self.input_schema}
        if self.description is not None:
            written["description"] = self.description
        if self.annotations is not None:
            written["annotations"] = self.annotations
        return written

    def hint(self, name: str, *, default: bool) -> bool:
        """Return one of its annotations, or what holds where it is not given."""
        given = (self.annotations or {}).get(name)
        return given if isinstance(given, bool) else default

    @property
    def is_read_only(self) -> bool:
        """Say whether it changes nothing, as far as its server says."""
        return self.hint("readOnlyHint", default=False)


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


@dataclass(frozen=True, slots=True)
class Decision:
    """Say for the audit log what became of a call.

    Attributes:
        item_id: of the call, or of the request to approve it.
        server_label: None for a function of the client's own.
        name: of the tool or function.
        arguments: as JSON text.
        what: such as "approval requested" or "denied".
        reason: why, where that is known.
    """

    item_id: str
    server_label: str | None
    name: str
    arguments: str
    what: Literal[
        "approval requested", "approved", "denied", "timed out", "called", "completed", "failed",
        "dropped",
    ]  # fmt: skip
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
