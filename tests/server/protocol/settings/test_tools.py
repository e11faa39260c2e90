"""Functions are checked when they are offered, not when they are called."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from server.errors import ClientError
from server.protocol.mcp.toolbox import Listings
from server.protocol.settings.tools import (
    FunctionTool,
    NamedFunction,
    ToolChoice,
    offered_schemas,
    parse_tool_choice,
    parse_tools,
)

_SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
_WEATHER = {"type": "function", "name": "weather", "description": "d", "parameters": _SCHEMA}


def _error(tool: Any) -> ClientError:
    with pytest.raises(ClientError) as caught:
        parse_tools([tool], "session.tools")
    return caught.value


def test_functions_are_echoed_as_given() -> None:
    """Keys that were not given are not there; `strict` is taken and forgotten."""
    given = [_WEATHER, {"type": "function", "name": "hang_up", "strict": True}]
    tools = parse_tools(given, "session.tools")
    assert [tool.to_json() for tool in tools] == [
        _WEATHER,
        {"type": "function", "name": "hang_up"},
    ]


def engine_tools(tools: Sequence[FunctionTool], choice: ToolChoice) -> tuple[Any, str]:
    """Return what the engine is given."""
    box = Listings().toolbox(tools, choice, is_in_band=True)
    return box.tools, box.choice


def test_the_engine_gets_a_schema_for_every_function() -> None:
    """A function without parameters takes an object without properties."""
    offered, choice = engine_tools([FunctionTool("f")], "auto")
    assert (offered[0].name, offered[0].description, choice) == ("f", "", "auto")
    assert json.loads(offered[0].parameters) == {"type": "object", "properties": {}}


def test_a_named_function_is_the_only_one_and_required() -> None:
    """So the engine knows no names; and where there is nothing to call, nothing is required."""
    tools = [FunctionTool("f"), FunctionTool("g")]
    offered, choice = engine_tools(tools, NamedFunction("g"))
    assert ([tool.name for tool in offered], choice) == (["g"], "required")
    assert engine_tools([], "required") == ((), "none")


@pytest.mark.parametrize(
    ("tool", "code", "path"),
    [
        ({}, "missing_required_parameter", "type"),
        ({"type": "retrieval"}, "invalid_value", "type"),
        ({"type": "function"}, "missing_required_parameter", "name"),
        ({"type": "function", "function": {"name": "f"}}, "unknown_parameter", "function"),
        ({"type": "function", "name": ""}, "invalid_value", "name"),
        ({"type": "function", "name": "a b"}, "invalid_value", "name"),
        ({"type": "function", "name": "f\n"}, "invalid_value", "name"),
        ({"type": "function", "name": "f" * 65}, "string_above_max_length", "name"),
        ({"type": "function", "name": "f", "description": 1}, "invalid_type", "description"),
        ({"type": "function", "name": "f", "parameters": []}, "invalid_type", "parameters"),
    ],
)
def test_what_is_refused(tool: Any, code: str, path: str) -> None:
    """With the place of what is wrong."""
    error = _error(tool)
    assert (error.code, error.param) == (code, f"session.tools[0].{path}")


def test_schemas_are_offered_to_whoever_compiles_them() -> None:
    """With their place, for the refusal; a function without parameters has none."""
    tools = [{"type": "function", "name": "hang_up"}, _WEATHER]
    (schema,) = offered_schemas(tools, "session.tools")
    assert json.loads(schema.text) == _SCHEMA
    error = schema.refusal("no")
    assert (error.code, error.param, error.message) == (
        "invalid_function_parameters",
        "session.tools[1].parameters",
        "Invalid schema for function 'weather': no",
    )


def test_a_schema_nested_too_deeply_is_refused() -> None:
    """Before anything that recurses sees it."""
    schema: Any = {"type": "string"}
    for _ in range(500):
        schema = {"type": "object", "properties": {"a": schema}}
    assert "nested too deeply" in _error({**_WEATHER, "parameters": schema}).message


def test_names_are_unique_and_the_list_is_bounded() -> None:
    """The answer to a call names the function, and tools cost memory."""
    with pytest.raises(ClientError, match="more than once") as caught:
        parse_tools([_WEATHER, _WEATHER], "session.tools")
    assert caught.value.param == "session.tools[1].name"
    with pytest.raises(ClientError) as caught:
        parse_tools([_WEATHER, _WEATHER, _WEATHER], "session.tools", max_tools=2)
    assert caught.value.code == "array_above_max_length"
    assert caught.value.message == (
        "Invalid 'session.tools': array too long. Expected an array with maximum length 2, but "
        "got an array with length 3 instead."
    )


@pytest.mark.parametrize(
    "given",
    [
        {"type": "function", "name": "f"},
        {"type": "function", "function": {"name": "f"}},
    ],
)
def test_a_function_is_named_in_two_forms(given: Any) -> None:
    """The flat one, and the nested one of the beta documentation."""
    assert parse_tool_choice(given, "session.tool_choice") == NamedFunction("f")


@pytest.mark.parametrize(
    ("choice", "code", "path"),
    [
        ("always", "invalid_value", ""),
        (None, "invalid_type", ""),
        ({}, "missing_required_parameter", ".type"),
        ({"type": "function"}, "missing_required_parameter", ".name"),
        ({"type": "function", "function": {}}, "missing_required_parameter", ".function.name"),
        ({"type": "mcp"}, "missing_required_parameter", ".server_label"),
    ],
)
def test_choices_that_are_refused(choice: Any, code: str, path: str) -> None:
    """With the place of what is wrong."""
    with pytest.raises(ClientError) as caught:
        parse_tool_choice(choice, "session.tool_choice")
    assert (caught.value.code, caught.value.param) == (code, f"session.tool_choice{path}")
