"""Settings of functions, MCP servers and approvals."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from server.config.strict import Strict


class McpServer(Strict):
    """An MCP server that clients may choose by its label; see docs/tools.md.

    Attributes:
        url: where it is; any address is fine, also one of this machine.
        transport: "http" (streamable), "sse" (its forerunner), or "auto" to find out.
        authorization: token that is sent as `Authorization: Bearer …`.
        headers: that are sent beside it.
        command: program and arguments of a server that is a process of this machine and speaks on
            its standard input and output.
        env: variables of its environment, beside a few harmless ones of ours.
        cwd: folder that it runs in.
    """

    url: Annotated[str, Field(pattern=r"^https?://[^@#]+$")] | None = None
    transport: Literal["auto", "http", "sse"] = "auto"
    authorization: str | None = Field(default=None, repr=False)
    headers: Mapping[str, str] = Field(default_factory=dict, repr=False)
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = Field(default_factory=dict, repr=False)
    cwd: Path | None = None

    @model_validator(mode="after")
    def _has_one_way(self) -> "McpServer":
        if (self.url is None) is (not self.command):
            raise ValueError("give url, or command for a process of this machine, and not both")
        return self


class McpSettings(Strict):
    """Which MCP servers sessions may use, and how much of them; see docs/tools.md.

    Attributes:
        servers: label → server; a client names the label, and no address.
        allowed: which others clients may name by `server_url`. An entry is a whole URL, or a host
            (`mcp.example.com`, `mcp.example.com:8443`, `*.example.com`, or `*` for any), and then
            the URL must be https. Addresses that are not public are refused all the same.
        list_timeout_s: how long a server may take to list its tools.
        call_timeout_s: how long a call may take.
        cache_s: how long a listing is used again.
        max_bytes: of all that a server sends for one listing or one call.
        max_output_chars: of what a call returned, for clients and for the model; more is cut off.
        max_calls: of one session at a time, listings included; more wait.
    """

    servers: Mapping[str, McpServer] = Field(default_factory=dict)
    allowed: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    list_timeout_s: Annotated[float, Field(gt=0)] = 10.0
    call_timeout_s: Annotated[float, Field(gt=0)] = 60.0
    # Tools change with a release of their server. Without this, each session would wait for a
    # listing.
    cache_s: Annotated[float, Field(ge=0)] = 300.0
    max_bytes: Annotated[int, Field(ge=1_024)] = 1 << 20
    max_output_chars: Annotated[int, Field(ge=16)] = 16_384
    max_calls: Annotated[int, Field(ge=1)] = 8


class ApprovalRule(Strict):
    """Which calls need a person's yes: all that is given must hold.

    Attributes:
        tool: pattern of the tool's name, as a shell's: `delete_*`.
        server: pattern of the MCP server's label; functions of the client's own have none. Left
            out, the rule is for tools of servers and for functions.
        arguments: path of an argument, such as `amount` or `to.country` → regular expression that
            is found in it. A missing argument matches nothing.
        annotation: what the tool's own server says of it. If it says nothing, `destructive` and
            `open_world` hold, as the MCP specification defines it. Functions are never annotated.
    """

    tool: str = "*"
    server: str | None = None
    arguments: Mapping[str, re.Pattern[str]] = Field(default_factory=dict)
    annotation: Literal["destructive", "open_world", "not_read_only"] | None = None


class ApprovalSettings(Strict):
    """What needs a person's yes, whatever clients ask for; see docs/tools.md.

    Attributes:
        rules: a call that matches one of them is held until somebody approves or denies it.
        timeout_s: how long it waits; then it counts as denied. Also for what clients want held.
        audit_file: where every decision and every end of a call is written, one JSON object a line;
            None for nowhere.
        audit_bytes: size at which the file is put aside and a new one begun.
        audit_files: how many are kept beside the newest.
    """

    rules: tuple[ApprovalRule, ...] = ()
    # A person decides: they may have to be found first, and a call must not wait for ever.
    timeout_s: Annotated[float, Field(gt=0)] = 300.0
    audit_file: Path | None = None
    audit_bytes: Annotated[int, Field(ge=1_024)] = 16 << 20
    audit_files: Annotated[int, Field(ge=1)] = 4


class ToolSettings(Strict):
    """How calls and replies go together; see docs/tools.md.

    Attributes:
        wait_for_calls: whether a response that a client asks for waits until every call made in the
            conversation has ended. Then several outputs get one reply, and further requests
            meanwhile count as the same one. Otherwise the response begins at once, with the outputs
            that have come.
        output_timeout_s: how long a client may take to return what a function call of the model
            returned; then the model is told that it did not. 0 for no limit.
    """

    wait_for_calls: bool = False
    output_timeout_s: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _waits_with_an_end(self) -> "ToolSettings":
        if self.wait_for_calls and not self.output_timeout_s:
            raise ValueError("wait_for_calls needs an output_timeout_s, or it may wait for ever")
        return self
