"""Know which tools MCP servers have, and give those of one response to the engine by one name each.

An engine knows names only. Tools of two servers, or a tool and a function, may have the same, and a
tool's name may hold what a function's cannot.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from model.messages import Tool
from model.messages import ToolChoice as EngineToolChoice
from server.protocol.items.mcp import ListedTool
from server.protocol.settings.mcp import McpChoice, McpTool
from server.protocol.settings.tools import AnyTool, FunctionTool, NamedFunction, ToolChoice

_MAX_NAME_LENGTH = 64
_NOT_IN_A_NAME = re.compile(r"[^a-zA-Z0-9_-]")


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """A tool of a server that a response offers.

    Attributes:
        server: that has it.
        tool: as the server describes it.
        called: what the engine calls it.
    """

    server: McpTool
    tool: ListedTool
    called: str

    def for_engine(self) -> Tool:
        """Return the tool as the engine takes it."""
        schema = json.dumps(self.tool.input_schema)
        return Tool(self.called, self.tool.description or "", schema)


@dataclass(frozen=True, slots=True)
class Toolbox:
    """Hold what one response offers.

    Attributes:
        tools: for the engine.
        choice: for the engine.
        offered: tools of servers among them, by the engine's names.
    """

    tools: tuple[Tool, ...] = ()
    choice: EngineToolChoice = "none"
    offered: Mapping[str, OfferedTool] = field(default_factory=dict)


@dataclass(slots=True)
class Listings:
    """Hold what the servers of one session have, as far as that is known.

    Attributes:
        listed: by the source of a server (`McpTool.source`); of one that failed, nothing.
        pending: sources that are being listed, by the item that waits for each.
    """

    listed: dict[tuple[object, ...], tuple[ListedTool, ...]] = field(default_factory=dict)
    pending: dict[str, tuple[object, ...]] = field(default_factory=dict)

    def is_pending(self, tools: Iterable[AnyTool]) -> bool:
        """Say whether one of the servers among some tools is being listed."""
        waiting = set(self.pending.values())
        return any(isinstance(tool, McpTool) and tool.source in waiting for tool in tools)

    def toolbox(self, tools: Iterable[AnyTool], choice: ToolChoice, *, is_in_band: bool) -> Toolbox:
        """Return what a response offers.

        A function or server that is chosen by name is passed alone, and required. Where there is
        nothing to call, nothing is required.

        Args:
            tools: of the response.
            choice: what of them is to be used.
            is_in_band: whether its output goes into the conversation. Calls of servers go on after
                their response, and would have nowhere to return anything otherwise.
        """
        functions = [tool for tool in tools if isinstance(tool, FunctionTool)]
        offered = self._offered(tools, {tool.name for tool in functions}) if is_in_band else []
        required: EngineToolChoice
        match choice:
            case NamedFunction(name):
                functions = [tool for tool in functions if tool.name == name]
                offered, required = [], "required"
            case McpChoice(label, name):
                functions, required = [], "required"
                offered = [
                    each
                    for each in offered
                    if each.server.label == label and name in (None, each.tool.name)
                ]
            case _:
                required = choice
        given = (
            *(function.for_engine() for function in functions),
            *(each.for_engine() for each in offered),
        )
        by_name = {each.called: each for each in offered}
        return Toolbox(given, required if given else "none", by_name)

    def _offered(self, tools: Iterable[AnyTool], taken: set[str]) -> list[OfferedTool]:
        offered: list[OfferedTool] = []
        for server in tools:
            if not isinstance(server, McpTool):
                continue
            for tool in self.listed.get(server.source, ()):
                if not server.offers(tool.name, is_read_only=tool.is_read_only):
                    continue
                called = _free_name(tool.name, server.label, taken)
                taken.add(called)
                offered.append(OfferedTool(server, tool, called))
        return offered


def _free_name(name: str, label: str, taken: set[str]) -> str:
    """Return a name for a tool: its own, with the server's label before it where that is taken."""
    own = _NOT_IN_A_NAME.sub("_", name)[:_MAX_NAME_LENGTH]
    candidates = [own, f"{label}_{own}"[:_MAX_NAME_LENGTH]]
    number = 2
    while candidates[0] in taken:
        candidates.pop(0)
        if not candidates:
            ending = f"_{number}"
            candidates.append(f"{own[: _MAX_NAME_LENGTH - len(ending)]}{ending}")
            number += 1
    return candidates[0]
