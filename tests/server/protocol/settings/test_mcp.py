"""Check tools of type `mcp`."""

from typing import Any

import pytest

from server.errors import ClientError
from server.protocol.settings.mcp import McpTool
from server.protocol.settings.tools import parse_tools

TOOL = {"type": "mcp", "server_label": "maps", "server_url": "https://maps.example.com/mcp"}


def parsed(**fields: Any) -> McpTool:
    """Return a tool with some fields."""
    (tool,) = parse_tools([{**TOOL, **fields}], "session.tools")
    assert isinstance(tool, McpTool)
    return tool


def test_what_is_secret_is_not_echoed() -> None:
    """Neither in the echo nor where a tool is shown."""
    tool = parsed(authorization="secret", headers={"X-Key": "secret"}, server_description="Maps.")
    assert tool.to_json() == {**TOOL, "server_description": "Maps."}
    assert "secret" not in repr(tool)


@pytest.mark.parametrize(
    "fields",
    [
        {"allowed_tools": ["a"]},
        {"allowed_tools": []},
        {"allowed_tools": {"tool_names": ["a"], "read_only": True}},
        {"require_approval": "always"},
        {"require_approval": {"always": {"tool_names": ["a"]}, "never": {"read_only": True}}},
    ],
)
def test_the_rest_is_echoed_as_it_was_given(fields: Any) -> None:
    """So a client recognises it."""
    assert parsed(**fields).to_json() == {**TOOL, **fields}


@pytest.mark.parametrize(
    ("approval", "needed"),
    [
        (None, (True, True)),
        ("always", (True, True)),
        ("never", (False, False)),
        ({"never": {"tool_names": ["look"]}}, (False, True)),
        ({"never": {"read_only": True}}, (False, True)),
        ({"always": {"tool_names": ["write"]}}, (True, True)),
        ({"always": {"tool_names": ["look"]}, "never": {"tool_names": ["look"]}}, (True, True)),
        ({}, (True, True)),
    ],
)
def test_what_needs_approval(approval: Any, needed: tuple[bool, bool]) -> None:
    """What nothing is said of does."""
    tool = parsed(require_approval=approval)
    looks = tool.needs_approval("look", is_read_only=True)
    assert (looks, tool.needs_approval("write", is_read_only=False)) == needed


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        *(({"server_url": url}, "server_url") for url in ("ftp://x/", "https://u:p@x/", "x", "")),
        *(
            ({"server_url": url}, "server_url")
            for url in ("https://x/#f", "https://ü/", "https:///")
        ),
        ({"server_url": "http://x:99999/"}, "server_url"),
        ({"server_label": "a b"}, "server_label"),
        ({"connector_id": "connector_gmail"}, "connector_id"),
        ({"tunnel_id": "t"}, "tunnel_id"),
        ({"authorization": "a\nb"}, "authorization"),
        ({"headers": {"Host": "x"}}, "headers.Host"),
        ({"headers": {"a b": "x"}}, "headers.a b"),
        ({"headers": {"a": "x\r\ny: z"}}, "headers.a"),
        ({"headers": {"a": 1}}, "headers.a"),
        ({"allowed_tools": "a"}, "allowed_tools"),
        ({"require_approval": "sometimes"}, "require_approval"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_what_is_refused(fields: Any, path: str) -> None:
    """With its place, and never with what is secret."""
    with pytest.raises(ClientError) as caught:
        parsed(**fields)
    assert caught.value.param == f"session.tools[0].{path}"


def test_labels_are_unique_and_servers_are_few() -> None:
    """As functions' names; and each costs a connection."""
    with pytest.raises(ClientError, match="more than once"):
        parse_tools([TOOL, TOOL], "session.tools")
    with pytest.raises(ClientError, match="too many servers"):
        parse_tools([{**TOOL, "server_label": f"s{n}"} for n in range(9)], "session.tools")
