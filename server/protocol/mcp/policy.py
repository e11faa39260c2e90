"""Say which calls need a person's yes, whatever clients ask for."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal, TypeAlias

from server.protocol.items.mcp import ListedTool

Annotation: TypeAlias = Literal["destructive", "open_world", "not_read_only"]


@dataclass(frozen=True, slots=True)
class Rule:
    """Describe calls that are risky; see `server.config.tools.ApprovalRule`."""

    tool: str = "*"
    server: str | None = None
    arguments: Mapping[str, re.Pattern[str]] = field(default_factory=dict)
    annotation: Annotation | None = None

    def fits(
        self, name: str, arguments: str, label: str | None = None, tool: ListedTool | None = None
    ) -> bool:
        """Say whether a call is one of those.

        Args:
            name: of the tool or function.
            arguments: a JSON object as text.
            label: of the server; None for a function of the client's own.
            tool: as the server describes it; None for a function.
        """
        if not fnmatchcase(name, self.tool):
            return False
        if self.server is not None and (label is None or not fnmatchcase(label, self.server)):
            return False
        if self.annotation is not None and not _is_annotated(tool, self.annotation):
            return False
        given = _parsed(arguments) if self.arguments else {}
        return all(
            (value := _at(given, path)) is not None and pattern.search(value) is not None
            for path, pattern in self.arguments.items()
        )


@dataclass(frozen=True, slots=True)
class ToolPolicy:
    """Say how calls and replies go together; see `server.config.tools.ToolSettings`.

    Attributes:
        rules: calls that need a person's yes.
        approval_timeout_s: how long that is waited for.
        wait_for_calls: whether a response that is asked for waits for every call to end.
        output_timeout_s: how long a client may take to return a function's output; 0 for ever.
    """

    rules: tuple[Rule, ...] = ()
    approval_timeout_s: float = 300.0
    wait_for_calls: bool = False
    output_timeout_s: float = 0.0

    def holds(
        self, name: str, arguments: str, label: str | None = None, tool: ListedTool | None = None
    ) -> bool:
        """Say whether a call needs a person's yes; arguments as of `Rule.fits`."""
        return any(rule.fits(name, arguments, label, tool) for rule in self.rules)


NO_POLICY = ToolPolicy()


def _is_annotated(tool: ListedTool | None, annotation: Annotation) -> bool:
    """Say whether a tool is annotated so; defaults are those of the MCP specification."""
    if tool is None:
        return False
    match annotation:
        case "destructive":
            return not tool.is_read_only and tool.hint("destructiveHint", default=True)
        case "open_world":
            return tool.hint("openWorldHint", default=True)
        case "not_read_only":
            return not tool.is_read_only


def _parsed(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return None


def _at(value: Any, path: str) -> str | None:
    """Return what stands at a path such as `to.country`, as text; None if nothing does."""
    for key in path.split("."):
        if isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        elif isinstance(value, dict) and key in value:
            value = value[key]
        else:
            return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
