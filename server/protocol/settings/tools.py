"""Hold the tools that a session offers to the model, and what a client asks of their use.

A tool is a function of the client's own, or a server whose tools `server.protocol.mcp` lists and
calls.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from model.messages import Tool
from server.config.server import DEFAULTS
from server.errors import ClientError
from server.protocol.settings.mcp import McpChoice, McpTool, parse_mcp_choice, parse_mcp_tool
from server.protocol.wire.checks import (
    JsonObject,
    array_at,
    choice_at,
    object_at,
    refuse_deep,
    refuse_unknown_keys,
    required,
    string_at,
)

MAX_TOOLS = DEFAULTS.max_tools
MAX_SERVERS = 8  # among them
_MAX_NAME_LENGTH = 64
# Source: Realtime API reference, session, tools: function names.
_NAME_PATTERN = re.compile(r"[a-zA-Z0-9_-]+")
_NO_PARAMETERS: JsonObject = {"type": "object", "properties": {}}


@dataclass(frozen=True, slots=True)
class FunctionTool:
    """Describe a function as the client gave it.

    Attributes:
        name: letters, digits, `_` and `-`, at most 64.
        description: None where the client gave none.
        parameters: JSON schema of the arguments; None for a function without any.
    """

    name: str
    description: str | None = None
    parameters: JsonObject | None = None

    def to_json(self) -> JsonObject:
        """Write the function with only the keys that were given: clients refuse null."""
        written: JsonObject = {"type": "function", "name": self.name}
        if self.description is not None:
            written["description"] = self.description
        if self.parameters is not None:
            written["parameters"] = self.parameters
        return written

    def for_engine(self) -> Tool:
        """Return the function as the engine takes it."""
        schema = _NO_PARAMETERS if self.parameters is None else self.parameters
        return Tool(self.name, self.description or "", json.dumps(schema))


@dataclass(frozen=True, slots=True)
class NamedFunction:
    """Demand a call of one function."""

    name: str

    def to_json(self) -> JsonObject:
        """Write the choice as the API does."""
        return {"type": "function", "name": self.name}


ToolChoice: TypeAlias = Literal["none", "auto", "required"] | NamedFunction | McpChoice
AnyTool: TypeAlias = FunctionTool | McpTool


def tool_choice_json(choice: ToolChoice) -> str | JsonObject:
    """Write a choice as the API does."""
    return choice if isinstance(choice, str) else choice.to_json()


def parse_tools(value: object, path: str, *, max_tools: int = MAX_TOOLS) -> tuple[AnyTool, ...]:
    """Return the functions and servers of a `tools` list.

    Args:
        value: the list as sent.
        path: where it was sent.
        max_tools: how many there may be.

    Raises:
        ClientError: with the path of the first thing that is wrong.
    """
    given = array_at(value, path)
    if len(given) > max_tools:
        raise ClientError(
            f"Invalid '{path}': array too long. Expected an array with maximum length "
            f"{max_tools}, but got an array with length {len(given)} instead.",
            code="array_above_max_length",
            param=path,
        )
    tools: dict[tuple[type[AnyTool], str], AnyTool] = {}
    for index, entry in enumerate(given):
        tool = _parse_tool(entry, f"{path}[{index}]")
        is_function = isinstance(tool, FunctionTool)
        name = tool.name if isinstance(tool, FunctionTool) else tool.label
        if (type(tool), name) in tools:
            noun, key = ("function", "name") if is_function else ("server label", "server_label")
            raise ClientError(
                f"Invalid '{path}': the {noun} '{name}' is there more than once.",
                code="invalid_value",
                param=f"{path}[{index}].{key}",
            )
        tools[type(tool), name] = tool
    if sum(isinstance(tool, McpTool) for tool in tools.values()) > MAX_SERVERS:
        raise ClientError(
            f"Invalid '{path}': too many servers. Expected at most {MAX_SERVERS} tools of type "
            "'mcp'.",
            code="array_above_max_length",
            param=path,
        )
    return tuple(tools.values())


def _parse_tool(value: object, path: str) -> AnyTool:
    given = object_at(value, path)
    kind = choice_at(required(given, "type", path), f"{path}.type", ("function", "mcp"))
    if kind == "mcp":
        return parse_mcp_tool(given, path)
    # `strict` is no part of the schema here, yet often sent: arguments always follow their schema.
    refuse_unknown_keys(given, path, ("type", "name", "description", "parameters", "strict"))
    name = _parse_name(required(given, "name", path), f"{path}.name")
    description = given.get("description")
    if description is not None:
        string_at(description, f"{path}.description")
    parameters = given.get("parameters")
    if parameters is not None:
        refuse_deep(object_at(parameters, f"{path}.parameters"), f"{path}.parameters")
    return FunctionTool(name, description, parameters)


def _parse_name(value: object, path: str) -> str:
    name = string_at(value, path, max_length=_MAX_NAME_LENGTH)
    if not _NAME_PATTERN.fullmatch(name):
        raise ClientError(
            f"Invalid '{path}': string does not match pattern. Expected a string that matches the "
            f"pattern '^{_NAME_PATTERN.pattern}$'.",
            code="invalid_value",
            param=path,
        )
    return name


@dataclass(frozen=True, slots=True)
class OfferedSchema:
    """A schema that has to be compiled before its event is taken.

    Attributes:
        text: as JSON.
        name: of its function.
        path: where it was sent.
    """

    text: str
    name: str
    path: str

    def refusal(self, reason: str) -> ClientError:
        """Make the error for a schema that calls cannot be kept within."""
        return ClientError(
            f"Invalid schema for function '{self.name}': {reason}",
            code="invalid_function_parameters",
            param=self.path,
        )


def offered_schemas(
    value: object, path: str, *, max_tools: int = MAX_TOOLS
) -> tuple[OfferedSchema, ...]:
    """Return the schemas of a `tools` list.

    The protocol does not compile them: that is slow, and not safe. Whoever hands an event to the
    machine has had its schemas checked elsewhere.

    Raises:
        ClientError: as `parse_tools`.
    """
    tools = parse_tools(value, path, max_tools=max_tools)
    return tuple(
        OfferedSchema(json.dumps(tool.parameters), tool.name, f"{path}[{index}].parameters")
        for index, tool in enumerate(tools)
        if isinstance(tool, FunctionTool) and tool.parameters is not None
    )


def parse_tool_choice(value: object, path: str) -> ToolChoice:
    """Return which tool use a client asks for.

    The beta documentation also nests the name as `{"type": "function", "function": {"name": f}}`.
    """
    if not isinstance(value, dict):
        modes: tuple[Literal["none", "auto", "required"], ...] = ("none", "auto", "required")
        return choice_at(value, path, modes)
    kind = choice_at(required(value, "type", path), f"{path}.type", ("function", "mcp"))
    if kind == "mcp":
        return parse_mcp_choice(value, path)
    nested: Any = value.get("function")
    if nested is not None and "name" not in value:
        refuse_unknown_keys(value, path, ("type", "function"))
        value, path = object_at(nested, f"{path}.function"), f"{path}.function"
        refuse_unknown_keys(value, path, ("name",))
    else:
        refuse_unknown_keys(value, path, ("type", "name"))
    return NamedFunction(string_at(required(value, "name", path), f"{path}.name"))


def check_choice_exists(choice: ToolChoice, tools: Iterable[AnyTool], path: str) -> None:
    """Refuse a demand for a function or a server that is not offered.

    Raises:
        ClientError: there is none of that name.
    """
    if isinstance(choice, str):
        return
    if isinstance(choice, NamedFunction):
        name, known = choice.name, {t.name for t in tools if isinstance(t, FunctionTool)}
    else:
        name, known = choice.label, {t.label for t in tools if isinstance(t, McpTool)}
    if name not in known:
        raise ClientError(
            f"Tool choice '{name}' not found in 'tools' parameter.",
            code="invalid_value",
            param=path,
        )
