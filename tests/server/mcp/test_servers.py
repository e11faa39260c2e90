"""Find the server that a client means, if it may be named."""

import pytest

from server.config.tools import McpSettings
from server.mcp.errors import McpFailure
from server.mcp.servers import HttpTarget, ProcessTarget, is_allowed, target_of
from server.protocol.settings.mcp import McpTool

SETTINGS = McpSettings.model_validate(
    {
        "servers": {
            "maps": {"url": "http://10.0.0.7/mcp", "authorization": "own", "headers": {"X-A": "1"}},
            "files": {"command": ["files", "--all"], "env": {"A": "b"}},
        },
        "allowed": ["https://other.example.com/mcp"],
    }
)


@pytest.mark.parametrize(
    ("url", "entry", "is_so"),
    [
        ("https://a.example.com/mcp", "https://a.example.com/mcp", True),
        ("https://A.example.com:443/mcp", "https://a.example.com/mcp", True),
        ("https://a.example.com./mcp", "a.example.com", True),
        ("https://a.example.com/mcp/x", "https://a.example.com/mcp", False),
        ("https://a.example.com/mcp?x=1", "https://a.example.com/mcp", False),
        ("http://a.example.com/mcp", "https://a.example.com/mcp", False),
        ("http://a.example.com/mcp", "http://a.example.com/mcp", True),
        ("https://a.example.com/any", "a.example.com", True),
        ("http://a.example.com/any", "a.example.com", False),
        ("https://a.example.com:8443/any", "a.example.com", False),
        ("https://a.example.com:8443/any", "a.example.com:8443", True),
        ("https://a.example.com/any", "*.example.com", True),
        ("https://example.com/any", "*.example.com", False),
        ("https://evil-example.com/any", "*.example.com", False),
        ("https://a.example.com.evil.com/any", "*.example.com", False),
        ("https://evil.com/a.example.com", "a.example.com", False),
        ("https://anything.org/", "*", True),
        ("http://anything.org/", "*", False),
    ],
)
def test_allow_list(url: str, entry: str, is_so: bool) -> None:
    """Whole URLs and hosts, which must be https."""
    assert is_allowed(url, (entry,)) is is_so


def test_a_label_stands_for_the_operators_server() -> None:
    """With the operator's headers and no others; any address is fine."""
    tool = McpTool("maps", authorization="clients", headers={"x-a": "2", "x-b": "3"})
    target = target_of(tool, SETTINGS)
    assert isinstance(target, HttpTarget)
    assert (target.url, target.is_trusted) == ("http://10.0.0.7/mcp", True)
    assert dict(target.headers) == {"authorization": "Bearer own", "x-a": "1"}
    assert "own" not in repr(target)


def test_a_token_of_the_clients_is_sent_where_the_operator_has_none() -> None:
    """A server that knows users can be asked in each one's name."""
    settings = McpSettings.model_validate({"servers": {"maps": {"url": "http://10.0.0.7/mcp"}}})
    target = target_of(McpTool("maps", authorization="clients"), settings)
    assert isinstance(target, HttpTarget)
    assert dict(target.headers) == {"authorization": "Bearer clients"}


def test_a_label_may_stand_for_a_process() -> None:
    """Which nothing that a client says changes."""
    target = target_of(McpTool("files", authorization="x"), SETTINGS)
    assert target == ProcessTarget(("files", "--all"), (("A", "b"),), None)


def test_another_url_under_the_operators_label_is_a_clients() -> None:
    """It gets the client's headers only, and has to be allowed and public."""
    tool = McpTool("maps", "https://other.example.com/mcp", authorization="Bearer mine")
    target = target_of(tool, SETTINGS)
    assert isinstance(target, HttpTarget)
    assert (target.is_trusted, dict(target.headers)) == (False, {"authorization": "Bearer mine"})


@pytest.mark.parametrize("tool", [McpTool("nobody"), McpTool("maps", "https://example.com/mcp")])
def test_what_is_not_named_is_not_reached(tool: McpTool) -> None:
    """By default there is nothing that clients can name."""
    with pytest.raises(McpFailure):
        target_of(tool, SETTINGS)
