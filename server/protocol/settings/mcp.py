"""Hold and check a tool of type `mcp`: a server whose tools a session or a response may use."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, cast
from urllib.parse import urlsplit

from server.errors import ClientError
from server.protocol.wire.checks import (
    JsonObject,
    array_at,
    boolean_at,
    choice_at,
    object_at,
    refuse_unknown_keys,
    required,
    string_at,
    unsupported,
)

_MAX_LABEL = 64
_MAX_NAMES = 256
_MAX_HEADERS, _MAX_HEADER_CHARS = 32, 8_192
_MAX_URL_CHARS = 2_048
_LABEL = re.compile(r"[A-Za-z0-9_-]+")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, section 5.6.2
_HEADER_VALUE = re.compile(r"[\x20-\x7e\t]*")
# What belongs to the connection, or to the protocol that is spoken on it.
_OUR_HEADERS = (
    *("accept", "accept-encoding", "connection", "content-length", "content-type", "expect"),
    *("host", "keep-alive", "last-event-id", "mcp-protocol-version", "mcp-session-id", "te"),
    *("trailer", "transfer-encoding", "upgrade"),
)

_KEYS = (
    *("type", "server_label", "server_url", "server_description", "authorization", "headers"),
    *("allowed_tools", "require_approval", "connector_id", "tunnel_id", "defer_loading"),
    "allowed_callers",
)


@dataclass(frozen=True, slots=True)
class ToolFilter:
    """Choose some of a server's tools; what is not given does not matter.

    Attributes:
        names: of the tools; None for any.
        read_only: whether they are annotated as changing nothing; None for either.
    """

    names: tuple[str, ...] | None = None
    read_only: bool | None = None

    def fits(self, name: str, *, is_read_only: bool) -> bool:
        """Say whether a tool is one of those."""
        is_named = self.names is None or name in self.names
        return is_named and self.read_only in (None, is_read_only)

    def to_json(self) -> JsonObject:
        """Write what was given."""
        written: JsonObject = {}
        if self.names is not None:
            written["tool_names"] = list(self.names)
        if self.read_only is not None:
            written["read_only"] = self.read_only
        return written


@dataclass(frozen=True, slots=True)
class ApprovalFilters:
    """Say which tools need a person's yes, and which do not; what neither names does."""

    always: ToolFilter | None = None
    never: ToolFilter | None = None

    def to_json(self) -> JsonObject:
        """Write what was given."""
        given = {"always": self.always, "never": self.never}
        return {key: each.to_json() for key, each in given.items() if each is not None}


RequireApproval: TypeAlias = Literal["always", "never"] | ApprovalFilters


@dataclass(frozen=True, slots=True)
class McpTool:
    """Hold a tool of type `mcp`.

    Attributes:
        label: names the server in items and events.
        url: None where the server is one of the operator's, chosen by its label.
        description: of the server, as the client gave it.
        authorization: a token; never written anywhere but to the server.
        headers: the same.
        allowed: which tools are offered; None for all.
        is_list: whether they were given as a list of names, which is echoed as one.
        approval: which calls need a person's yes; None, as where nothing was given, means all.
    """

    label: str
    url: str | None = None
    description: str | None = None
    authorization: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    allowed: ToolFilter | None = None
    is_list: bool = False
    approval: RequireApproval | None = None

    def to_json(self) -> JsonObject:
        """Write the tool with only the keys that were given, and without what is secret."""
        written: JsonObject = {"type": "mcp", "server_label": self.label}
        if self.url is not None:
            written["server_url"] = self.url
        if self.description is not None:
            written["server_description"] = self.description
        if self.allowed is not None:
            allowed = self.allowed
            names = list(allowed.names or ())
            written["allowed_tools"] = names if self.is_list else allowed.to_json()
        if self.approval is not None:
            approval = self.approval
            written["require_approval"] = (
                approval if isinstance(approval, str) else approval.to_json()
            )
        return written

    def offers(self, name: str, *, is_read_only: bool) -> bool:
        """Say whether a tool of the server is offered to the model."""
        return self.allowed is None or self.allowed.fits(name, is_read_only=is_read_only)

    def needs_approval(self, name: str, *, is_read_only: bool) -> bool:
        """Say whether the client wants a call of a tool to be approved."""
        if self.approval is None or isinstance(self.approval, str):
            return self.approval != "never"
        always, never = self.approval.always, self.approval.never
        if always is not None and always.fits(name, is_read_only=is_read_only):
            return True
        return never is None or not never.fits(name, is_read_only=is_read_only)

    @property
    def source(self) -> tuple[object, ...]:
        """Return what its listing depends on."""
        return self.label, self.url, self.authorization, tuple(sorted(self.headers.items()))


@dataclass(frozen=True, slots=True)
class McpChoice:
    """Demand a call of a tool of a server.

    Attributes:
        label: of the server.
        name: of the tool; None for any of the server's.
    """

    label: str
    name: str | None = None

    def to_json(self) -> JsonObject:
        """Write the choice as the API does."""
        written: JsonObject = {"type": "mcp", "server_label": self.label}
        return written if self.name is None else written | {"name": self.name}


def parse_mcp_tool(given: JsonObject, path: str) -> McpTool:
    """Return a tool of type `mcp`.

    `defer_loading` and `allowed_callers` are about how the hosted service searches tools and runs
    programs: they are checked, and mean nothing here.

    Raises:
        ClientError: with the path of the first thing that is wrong.
    """
    refuse_unknown_keys(given, path, _KEYS)
    for key, what in (("connector_id", "Connectors"), ("tunnel_id", "Tunnels")):
        if given.get(key) is not None:
            reason = f"{what} belong to the hosted service: give the server's own 'server_url'."
            raise unsupported(f"{path}.{key}", reason)
    if given.get("defer_loading") is not None:
        boolean_at(given["defer_loading"], f"{path}.defer_loading")
    if given.get("allowed_callers") is not None:
        callers = array_at(given["allowed_callers"], f"{path}.allowed_callers")
        for index, caller in enumerate(callers):
            choice_at(caller, f"{path}.allowed_callers[{index}]", ("direct", "programmatic"))
    allowed = given.get("allowed_tools")
    return McpTool(
        _parse_label(required(given, "server_label", path), f"{path}.server_label"),
        _optional_url(given.get("server_url"), f"{path}.server_url"),
        _optional_string(given.get("server_description"), f"{path}.server_description"),
        _optional_token(given.get("authorization"), f"{path}.authorization"),
        _parse_headers(given.get("headers"), f"{path}.headers"),
        None if allowed is None else _parse_allowed(allowed, f"{path}.allowed_tools"),
        isinstance(allowed, list),
        _parse_approval(given.get("require_approval"), f"{path}.require_approval"),
    )


def parse_mcp_choice(given: JsonObject, path: str) -> McpChoice:
    """Return the demand of a `tool_choice` of type `mcp`."""
    refuse_unknown_keys(given, path, ("type", "server_label", "name"))
    label = string_at(required(given, "server_label", path), f"{path}.server_label")
    return McpChoice(label, _optional_string(given.get("name"), f"{path}.name"))


def _optional_string(value: object, path: str) -> str | None:
    return None if value is None else string_at(value, path)


def _parse_label(value: object, path: str) -> str:
    label = string_at(value, path, max_length=_MAX_LABEL)
    if not _LABEL.fullmatch(label):
        raise ClientError(
            f"Invalid '{path}': string does not match pattern. Expected a string that matches the "
            f"pattern '^{_LABEL.pattern}$'.",
            code="invalid_value",
            param=path,
        )
    return label


def _optional_url(value: object, path: str) -> str | None:
    if value is None:
        return None
    url = string_at(value, path, max_length=_MAX_URL_CHARS)
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname)
        is_good = is_good and "@" not in parts.netloc and not parts.fragment
        is_good = is_good and url.isascii() and url.isprintable() and " " not in url
        is_good = is_good and (parts.port is None or parts.port > 0) and "\\" not in url
    except ValueError:
        is_good = False
    if not is_good:
        raise ClientError(
            f"Invalid '{path}': expected an http or https URL of ASCII characters, without a user, "
            "a password and a fragment.",
            code="invalid_value",
            param=path,
        )
    return url


def _optional_token(value: object, path: str) -> str | None:
    if value is None:
        return None
    token = string_at(value, path, max_length=_MAX_HEADER_CHARS)
    if not _HEADER_VALUE.fullmatch(token):
        raise _not_a_header(path)
    return token


def _not_a_header(path: str) -> ClientError:
    # The value is secret, and not shown.
    return ClientError(
        f"Invalid '{path}': it cannot be sent as an HTTP header.", code="invalid_value", param=path
    )


def _parse_headers(value: object, path: str) -> Mapping[str, str]:
    if value is None:
        return {}
    given = object_at(value, path)
    if len(given) > _MAX_HEADERS:
        raise ClientError(
            f"Invalid '{path}': too many properties. Expected an object with at most "
            f"{_MAX_HEADERS} properties, but got an object with {len(given)} properties instead.",
            code="object_above_max_properties",
            param=path,
        )
    for name, header in given.items():
        text = string_at(header, f"{path}.{name}", max_length=_MAX_HEADER_CHARS)
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(text):
            raise _not_a_header(f"{path}.{name}")
        if name.lower() in _OUR_HEADERS or name.lower().startswith(("proxy-", "sec-")):
            raise unsupported(f"{path}.{name}", "This header is the server's own to set.")
    return dict(given)


def _parse_allowed(value: object, path: str) -> ToolFilter:
    if isinstance(value, list):
        return ToolFilter(_parse_names(value, path))
    return _parse_filter(value, path)


def _parse_names(value: object, path: str) -> tuple[str, ...]:
    names = array_at(value, path)
    if len(names) > _MAX_NAMES:
        raise ClientError(
            f"Invalid '{path}': array too long. Expected an array with maximum length "
            f"{_MAX_NAMES}, but got an array with length {len(names)} instead.",
            code="array_above_max_length",
            param=path,
        )
    return tuple(string_at(name, f"{path}[{index}]") for index, name in enumerate(names))


def _parse_filter(value: object, path: str) -> ToolFilter:
    given = object_at(value, path)
    refuse_unknown_keys(given, path, ("tool_names", "read_only"))
    names, read_only = given.get("tool_names"), given.get("read_only")
    return ToolFilter(
        None if names is None else _parse_names(names, f"{path}.tool_names"),
        None if read_only is None else boolean_at(read_only, f"{path}.read_only"),
    )


def _parse_approval(value: object, path: str) -> RequireApproval | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        return cast("RequireApproval", choice_at(value, path, ("always", "never")))
    refuse_unknown_keys(value, path, ("always", "never"))
    filters = {
        key: None if value.get(key) is None else _parse_filter(value[key], f"{path}.{key}")
        for key in ("always", "never")
    }
    return ApprovalFilters(filters["always"], filters["never"])
