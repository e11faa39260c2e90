"""Say which calls need a person's yes."""

import re
from typing import Any

import pytest

from server.protocol.items.mcp import ListedTool
from server.protocol.mcp.policy import Rule

READS = ListedTool("look", {}, annotations={"readOnlyHint": True, "openWorldHint": False})
WRITES = ListedTool("write", {}, annotations={"destructiveHint": False})
SILENT = ListedTool("do", {})


@pytest.mark.parametrize(
    ("rule", "is_so"),
    [
        ({}, True),
        ({"tool": "delete_*"}, True),
        ({"tool": "delete"}, False),
        ({"server": "m*"}, True),
        ({"server": "other"}, False),
        ({"arguments": {"amount": r"^\d{4,}$"}}, True),
        ({"arguments": {"amount": "x"}}, False),
        ({"arguments": {"to.country": "FR"}}, True),
        ({"arguments": {"to.names.1": "b"}}, True),
        ({"arguments": {"to.names.7": ""}}, False),
        ({"arguments": {"absent": ""}}, False),
        ({"arguments": {"amount": "", "absent": ""}}, False),
        ({"arguments": {"sure": "true"}}, True),
    ],
)
def test_rules(rule: Any, is_so: bool) -> None:
    """All that is given must hold."""
    patterns = {path: re.compile(text) for path, text in rule.get("arguments", {}).items()}
    arguments = '{"amount":5000,"to":{"country":"FR","names":["a","b"]},"sure":true}'
    fitted = Rule(**{**rule, "arguments": patterns}).fits("delete_all", arguments, "maps", SILENT)
    assert fitted is is_so


@pytest.mark.parametrize(
    ("annotation", "fits"),
    [
        ("destructive", (False, False, True)),
        ("open_world", (False, True, True)),
        ("not_read_only", (False, True, True)),
    ],
)
def test_annotations(annotation: Any, fits: tuple[bool, ...]) -> None:
    """What a server does not say is as the specification has it; functions have none."""
    rule = Rule(annotation=annotation)
    assert tuple(rule.fits(t.name, "{}", "s", t) for t in (READS, WRITES, SILENT)) == fits
    assert not rule.fits("f", "{}")


def test_a_rule_for_servers_is_none_for_functions() -> None:
    """A rule without a server is for both."""
    assert not Rule(server="*").fits("f", "{}")
    assert Rule().fits("f", "{}")
