"""A conversation becomes messages that a strict server takes."""

from typing import Any

from server.protocol.delegate.chat import chat_messages
from server.protocol.items.items import FunctionCall, FunctionCallOutput, Message, TextPart
from server.protocol.items.mcp import (
    McpApprovalRequest,
    McpApprovalResponse,
    McpCall,
    McpListTools,
    McpReturned,
)


def message(role: Any, text: str) -> Message:
    """Make a message."""
    kind: Any = "output_text" if role == "assistant" else "input_text"
    return Message(f"{role} {text}", role, "completed", (TextPart(kind, text),))


def called(call_id: str, arguments: str = "{}") -> Any:
    """Write a call."""
    function = {"name": "f", "arguments": arguments}
    call = {"id": call_id, "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def returned(call_id: str, output: str) -> Any:
    """Write what a call returned."""
    return {"role": "tool", "tool_call_id": call_id, "content": output}


def test_messages_keep_their_order_and_instructions_come_first() -> None:
    """What is empty is no message."""
    items: list[Any] = [message("user", "hi"), message("assistant", "hello"), message("user", "")]
    assert chat_messages(("be brief", "", "be kind"), items, 100) == (
        {"role": "system", "content": "be brief\n\nbe kind"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
    )
    assert chat_messages(("", ""), [], 100) == ()


def test_every_call_is_followed_by_what_it_returned() -> None:
    """In whatever order outputs come; one that has not come is said so."""
    items: list[Any] = [
        FunctionCall("1", "completed", "a", "f", '{"x":1}'),
        FunctionCall("2", "completed", "b", "f", ""),
        FunctionCall("3", "incomplete", "c", "f", '{"x'),
        FunctionCallOutput("4", "b", "f", "second"),
        message("user", "and?"),
    ]
    assert chat_messages((), items, 1_000) == (
        called("a", '{"x":1}'),
        returned("a", "The call has not returned anything yet."),
        called("b"),
        returned("b", "second"),
        {"role": "user", "content": "and?"},
    )


def test_calls_of_servers_are_calls() -> None:
    """One that was asked for stands at its request, approved or denied; one that was not, alone."""
    items: list[Any] = [
        McpListTools("l", "s"),
        McpCall("m", "s", "f", "f", "{}", output="own"),
        McpReturned("m", "f", "own"),
        McpApprovalRequest("r", "s", "f", "f", "{}"),
        McpApprovalResponse("x", "r", is_approved=True, reason=None, called="f"),
        McpCall("n", "s", "f", "f", "{}", approval_request_id="r", output="allowed"),
        McpReturned("n", "f", "allowed"),
        McpApprovalRequest("q", "s", "f", "f", "{}"),
        McpApprovalResponse("y", "q", is_approved=False, reason="No.", called="f"),
    ]
    assert chat_messages((), items, 1_000) == (
        called("m"),
        returned("m", "own"),
        called("r"),
        returned("r", "allowed"),
        called("q"),
        returned("q", "The call was not approved. No."),
    )


def test_of_too_much_the_oldest_is_left_out() -> None:
    """A call and what it returned go together, and the newest is always shown."""
    items: list[Any] = [
        FunctionCall("1", "completed", "a", "f", "{}"),
        FunctionCallOutput("2", "a", "f", "x" * 20),
        message("user", "y" * 20),
        message("user", "z" * 30),
    ]
    contents = [each["content"] for each in chat_messages((), items, 50)]
    assert contents == ["y" * 20, "z" * 30]
    assert [each["content"] for each in chat_messages((), items, 10)] == ["z" * 30]
