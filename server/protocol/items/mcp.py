"""Define the items that tools of MCP servers leave in a conversation."""

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from server.protocol.wire.checks import JsonObject


@dataclass(frozen=True, slots=True)
class McpError:
    """Say how a call failed, as the API does.

    Attributes:
        kind: "tool_execution_error" is what the tool itself says.
        message: for the model and for a person.
        code: of JSON-RPC or HTTP, 0 where there is none; a tool's own error has none.
    """

    kind: Literal["protocol_error", "tool_execution_error", "http_error"]
    message: str
    code: int = 0

    def to_json(self) -> JsonObject:
        """Write the error as the API does."""
        written: JsonObject = {"type": self.kind, "message": self.message}
        if self.kind != "tool_execution_error":
            written["code"] = self.code
        return written


@dataclass(frozen=True, slots=True)
class ListedTool:
    """Describe a tool of a server.

    Attributes:
        name: as the server has it; not every one could be a function's.
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
        """Return one of its annotations, or a default if it is not given."""
        given = (self.annotations or {}).get(name)
        return given if isinstance(given, bool) else default

    @property
    def is_read_only(self) -> bool:
        """Say whether it changes nothing, as far as its server says."""
        return self.hint("readOnlyHint", default=False)


@dataclass(frozen=True, slots=True)
class McpListTools:
    """Hold what a server has; the model sees the tools, and not this item.

    Attributes:
        server_label: of the server.
        tools: none until they are listed.
        is_open: whether they are being listed.
    """

    image_bytes: ClassVar[int] = 0
    id: str
    server_label: str
    tools: tuple[ListedTool, ...] = ()
    is_open: bool = True

    @property
    def num_chars(self) -> int:
        """Count the characters of its texts, about."""
        return sum(
            len(tool.name) + len(tool.description or "") + len(str(tool.input_schema))
            for tool in self.tools
        )


@dataclass(frozen=True, slots=True)
class McpCall:
    """Hold a call of a tool.

    Attributes:
        server_label: of the server that has the tool.
        name: of the tool, as its server has it.
        called: what the model calls the tool.
        arguments: a JSON object as text.
        approval_request_id: of the item by which it was asked for; None where nobody was asked.
        output: what it returned; None until then, and if it failed.
        error: how it failed; None until then, and if it did not.
    """

    image_bytes: ClassVar[int] = 0
    id: str
    server_label: str
    name: str
    called: str
    arguments: str
    approval_request_id: str | None = None
    output: str | None = None
    error: McpError | None = None

    @property
    def is_open(self) -> bool:
        """Say whether it goes on."""
        return self.output is None and self.error is None

    @property
    def num_chars(self) -> int:
        """Count the characters of its texts."""
        error = "" if self.error is None else self.error.message
        return len(self.name) + len(self.arguments) + len(self.output or "") + len(error)


@dataclass(frozen=True, slots=True)
class McpApprovalRequest:
    """Ask a person whether a tool may be called; attributes as of `McpCall`."""

    image_bytes: ClassVar[int] = 0
    id: str
    server_label: str
    name: str
    called: str
    arguments: str

    @property
    def num_chars(self) -> int:
        """Count the characters of its texts."""
        return len(self.name) + len(self.arguments)


@dataclass(frozen=True, slots=True)
class McpApprovalResponse:
    """Hold a person's answer to a request.

    Attributes:
        approval_request_id: of the request.
        is_approved: whether the tool may be called.
        reason: for the answer; None where none was given.
        called: what the model calls the tool.
    """

    image_bytes: ClassVar[int] = 0
    id: str
    approval_request_id: str
    is_approved: bool
    reason: str | None
    called: str

    @property
    def num_chars(self) -> int:
        """Count the characters of its texts."""
        return len(self.reason or "")

    @property
    def told(self) -> str:
        """Return what the model is told of a call that was denied."""
        reason = f" {self.reason}" if self.reason else ""
        return f"The call was not approved.{reason}"


@dataclass(frozen=True, slots=True)
class McpReturned:
    """Say where in the conversation a call came to its end, for the model's memory alone.

    The call's item stays where the call was made. Its result may come much later, and the model
    remembers it from that place on, as a person would who was told at that time.
    """

    id: str
    called: str
    output: str


McpItem: TypeAlias = McpListTools | McpCall | McpApprovalRequest | McpApprovalResponse
