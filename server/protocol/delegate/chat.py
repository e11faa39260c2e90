"""Write a conversation as messages of the Chat Completions API."""

from collections.abc import Iterable, Iterator, Sequence

from server.protocol.items.items import FunctionCall, FunctionCallOutput, Item, Message
from server.protocol.items.mcp import (
    McpApprovalRequest,
    McpApprovalResponse,
    McpCall,
    McpListTools,
    McpReturned,
)
from server.protocol.wire.checks import JsonObject

# A call whose output has not come: the API refuses a call that nothing follows.
_GOES_ON = "The call has not returned anything yet."
_SEEN = "[an image]"

# A worked example. Outputs may come in any order, and while the talk goes on:
#
#     conversation                     messages
#     user "rain in oslo and rome"     user "rain in oslo and rome"
#     call a, call b                   assistant, call a; tool a "dry"
#     output b "wet"                   assistant, call b; tool b "wet"
#     user "and?"                      user "and?"
#     output a "dry"
#
# Each output stands right behind its call, since that is where the Chat Completions API wants it.
#
# Source: Chat Completions API reference, messages: an assistant message with `tool_calls` must be
# followed by a tool message for each `tool_call_id`.


def chat_messages(
    instructions: Sequence[str], items: Iterable[Item | McpReturned], max_chars: int
) -> tuple[JsonObject, ...]:
    """Return the messages of a conversation, without the oldest where they are too long.

    Args:
        instructions: that come first; empty ones are left out.
        items: of the conversation.
        max_chars: of the messages, instructions aside.
    """
    told = [*items]
    outputs = dict(_outputs(told))
    groups = [group for item in told if (group := _messages(item, outputs))]
    kept: list[list[JsonObject]] = []
    for group in reversed(groups):
        max_chars -= sum(_num_chars(message) for message in group)
        # The newest is always shown.
        if max_chars < 0 and kept:
            break
        kept.append(group)
    prompt = "\n\n".join(part for part in instructions if part)
    system: list[JsonObject] = [{"role": "system", "content": prompt}] if prompt else []
    return (*system, *(message for group in reversed(kept) for message in group))


def _outputs(items: Iterable[Item | McpReturned]) -> Iterator[tuple[str, str]]:
    """Yield what calls returned, by the call's name in the messages."""
    approved: dict[str, str] = {}  # call → request, of calls that were asked for
    for item in items:
        match item:
            case FunctionCallOutput():
                yield item.call_id, item.output
            case McpApprovalResponse(is_approved=False):
                yield item.approval_request_id, item.told
            case McpCall(approval_request_id=str(request_id)):
                approved[item.id] = request_id
            case McpReturned():
                yield approved.get(item.id, item.id), item.output
            case _:
                pass


def _messages(item: Item | McpReturned, outputs: dict[str, str]) -> list[JsonObject]:
    match item:
        case Message():
            seen = [_SEEN] * len(item.pictures)
            text = " ".join(part for part in (item.words, *seen) if part)
            return [{"role": item.role, "content": text}] if text else []
        case FunctionCall(status="completed"):
            return _call(item.call_id, item.name, item.arguments, outputs)
        case McpApprovalRequest() | McpCall(approval_request_id=None):
            return _call(item.id, item.called, item.arguments, outputs)
        case McpListTools() | McpCall() | McpApprovalResponse():
            return []
        case FunctionCall() | FunctionCallOutput() | McpReturned():
            return []


def _call(call_id: str, name: str, arguments: str, outputs: dict[str, str]) -> list[JsonObject]:
    function = {"name": name, "arguments": arguments or "{}"}
    call = {"id": call_id, "type": "function", "function": function}
    return [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call_id, "content": outputs.get(call_id, _GOES_ON)},
    ]


def _num_chars(message: JsonObject) -> int:
    calls = message.get("tool_calls", ())
    return len(message["content"] or "") + sum(len(c["function"]["arguments"]) for c in calls)
