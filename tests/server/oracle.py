"""Judge server events by the strictest readers there are.

The `openai` package publishes the types of all events; known clients drop some events that these
types let through, so what they need is checked as well.
"""

import base64
import json
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import jsonschema
from openai.types.beta.realtime import RealtimeServerEvent as BetaServerEvent
from openai.types.realtime import RealtimeServerEvent
from pydantic import Field, TypeAdapter

Event = dict[str, Any]

_MAX_BETA_SPEED = 1.5
_BETA_EVENTS = Path(__file__).parent / "beta_events.json"
# Not in the published union, though it is what the API sends first of all.
_UNPUBLISHED_BETA = ("transcription_session.created",)
_ITEM_KEYS = {
    "message": {"role", "content", "status"},
    "function_call": {"call_id", "name", "arguments", "status"},
    "function_call_output": {"call_id", "output", "status"},
    "mcp_list_tools": {"server_label", "tools"},
    "mcp_call": {
        *("server_label", "name", "arguments", "approval_request_id", "output", "error"),
    },
    "mcp_approval_request": {"server_label", "name", "arguments"},
    "mcp_approval_response": {"approval_request_id", "approve", "reason"},
}
_AUDIO_DELTAS = ("response.output_audio.delta", "response.audio.delta")


@cache
def _adapter(*, is_beta: bool) -> TypeAdapter[Any]:
    union: Any = BetaServerEvent if is_beta else RealtimeServerEvent
    return TypeAdapter(Annotated[union, Field(discriminator="type")])


def check(event: Event, *, is_beta: bool = False) -> None:
    """Fail if some client could not read an event.

    Args:
        event: as parsed from the wire.
        is_beta: of the beta dialect.
    """
    assert event.get("event_id"), f"no event_id: {event}"
    given, event = event, _without_servers(event) if is_beta else event
    published = _as_published(event) if is_beta else event
    if is_beta:
        _check_beta_schema(event)
    if not (is_beta and (event["type"] in _UNPUBLISHED_BETA or _is_about_mcp(event))):
        _adapter(is_beta=is_beta).validate_python(published, strict=True)
    for item in _items(given):
        _check_item(item)
    if "part" in event:
        assert event["part"]["type"] in ("audio", "text"), event
        assert None not in event["part"].values(), event
    if event["type"] in _AUDIO_DELTAS:
        base64.b64decode(event["delta"], validate=True)
    if event["type"] == "response.done":
        _check_usage(event["response"]["usage"])


@cache
def _beta_validator(event_type: str) -> jsonschema.Draft202012Validator:
    """Return the judge of one beta event, by the API's published description."""
    described = json.loads(_BETA_EVENTS.read_text())
    assert event_type in described["events"], f"beta has no event {event_type}"
    schema = {
        "$ref": f"#/$defs/{described['events'][event_type]}",
        "$defs": described["$defs"],
    }
    return jsonschema.Draft202012Validator(schema)


def _check_beta_schema(event: Event) -> None:
    described = _as_described(event)
    error = jsonschema.exceptions.best_match(_beta_validator(event["type"]).iter_errors(described))
    assert error is None, f"{event['type']}: {error.json_path}: {error.message[:300]}"


def _as_described(event: Event) -> Event:
    """Return a beta event as the published description has it, where the real service differs.

    Null stands for what the description leaves out. It describes items with GA's kinds of content,
    a `client_secret` that only sessions made over HTTP have, a `tool_choice` that is no object,
    and less speed than Parley has.
    """
    described: Event = _without_nulls(event)
    for item in _items(described):
        for part in item.get("content", []) if item.get("role") == "assistant" else []:
            part["type"] = {"text": "output_text", "audio": "output_audio"}[part["type"]]
    if event["type"].startswith("transcription_session."):
        described["session"].setdefault("client_secret", {"value": "ek_", "expires_at": 0})
    session = described.get("session", {})
    if session.get("speed", 1) > _MAX_BETA_SPEED:
        del session["speed"]
    if isinstance(session.get("tool_choice"), dict):
        del session["tool_choice"]
    return described


def _without_nulls(value: Any) -> Any:
    match value:
        case dict():
            return {key: _without_nulls(each) for key, each in value.items() if each is not None}
        case list():
            return [_without_nulls(each) for each in value]
        case _:
            return value


def _as_published(event: Event) -> Event:
    """Return a beta event as the published types know it: they name the hosted models only."""
    if "session" not in event:
        return event
    session = {key: value for key, value in event["session"].items() if key != "client_secret"}
    session["model"] = "gpt-4o-realtime-preview"
    if event["type"] == "transcription_session.updated":
        # Required there, though only sessions made over HTTP have one.
        session["client_secret"] = {"value": "ek_", "expires_at": 0}
    if isinstance(session.get("tool_choice"), dict):
        session["tool_choice"] = "auto"
    return {**event, "session": session}


def _without_servers(event: Event) -> Event:
    """Return a beta event without tools of type `mcp`, which its published sessions have not."""
    tools = event.get("session", {}).get("tools")
    if not tools:
        return event
    functions = [tool for tool in tools if tool["type"] == "function"]
    return {**event, "session": {**event["session"], "tools": functions}}


def _is_about_mcp(event: Event) -> bool:
    """Say whether an event is about MCP tools, of which the published beta types know nothing."""
    items = _items(event)
    return "mcp" in event["type"] or any(item["type"].startswith("mcp_") for item in items)


def _items(event: Event) -> list[Event]:
    items: list[Event] = [event["item"]] if "item" in event else []
    return items + (event["response"]["output"] if "response" in event else [])


def _check_item(item: Event) -> None:
    keys = _ITEM_KEYS[item["type"]] | {"id", "object", "type"}
    assert set(item) == keys, f"a {item['type']} has {sorted(item)}"
    assert len(item["id"]) <= 32, "clients replay ids, and a replayed id is at most 32 long"
    # Of a call of a server's tool one client needs every key.
    nullable = item["type"] in ("mcp_call", "mcp_approval_response")
    assert nullable or None not in item.values(), item
    if item["type"] == "function_call" and item["status"] != "in_progress":
        assert item["arguments"], "a call without arguments is taken for no call"
    for part in item.get("content", []):
        if part["type"] in ("input_audio", "output_audio", "audio"):
            assert "transcript" in part, "one client throws without it"
        assert all(value is not None or key == "transcript" for key, value in part.items()), part


def _check_usage(usage: Event | None) -> None:
    assert usage is not None, "one client waits forever without it"
    given, made = usage["input_token_details"], usage["output_token_details"]
    cached = given["cached_tokens_details"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert usage["input_tokens"] == sum(
        given[f"{kind}_tokens"] for kind in ("text", "audio", "image")
    )
    assert usage["output_tokens"] == made["text_tokens"] + made["audio_tokens"]
    assert given["cached_tokens"] == sum(cached.values())
    for kind in ("text", "audio", "image"):
        assert 0 <= cached[f"{kind}_tokens"] <= given[f"{kind}_tokens"], "cached ones are a subset"
