"""Write conversation items and response parts as the API does.

Every kind of item has only its own keys: clients refuse others, even null. But a transcript that is
not known yet is null and must be there.
"""

from collections.abc import Mapping
from typing import assert_never

from server.protocol.items.items import (
    AudioPart,
    FunctionCall,
    FunctionCallOutput,
    ImagePart,
    Item,
    Message,
    Part,
    TextPart,
)
from server.protocol.items.mcp import (
    McpApprovalRequest,
    McpApprovalResponse,
    McpCall,
    McpItem,
    McpListTools,
)
from server.protocol.wire.checks import JsonObject


def item_json(item: Item, content_types: Mapping[str, str] | None = None) -> JsonObject:
    """Write an item.

    Args:
        item: of the conversation or of a response.
        content_types: GA's names of content types → what to write instead.
    """
    # Source: Realtime API reference, conversation items. `call_id: null` on a message makes one
    # client drop the event, and a user's part without `transcript` makes another one fail.
    written: JsonObject = {"id": item.id, "object": "realtime.item"}
    match item:
        case Message():
            content = [_content(part, content_types or {}) for part in item.content]
            return written | {
                "type": "message",
                "status": item.status,
                "role": item.role,
                "content": content,
            }
        case FunctionCall():
            return written | {
                "type": "function_call",
                "status": item.status,
                "call_id": item.call_id,
                "name": item.name,
                "arguments": item.arguments,
            }
        case FunctionCallOutput():
            return written | {
                "type": "function_call_output",
                "status": "completed",
                "call_id": item.call_id,
                "output": item.output,
            }
        case McpListTools() | McpCall() | McpApprovalRequest() | McpApprovalResponse():
            return written | _mcp(item)
        case _:
            assert_never(item)


def _mcp(item: McpItem) -> JsonObject:
    """Write what an item has that is about a tool of a server."""
    match item:
        case McpListTools():
            tools = [tool.to_json() for tool in item.tools]
            return {
                "type": "mcp_list_tools",
                "server_label": item.server_label,
                "tools": tools,
            }
        case McpCall():
            # One client throws where `output` is not there.
            return {
                "type": "mcp_call",
                "server_label": item.server_label,
                "name": item.name,
                "arguments": item.arguments,
                "approval_request_id": item.approval_request_id,
                "output": item.output,
                "error": None if item.error is None else item.error.to_json(),
            }
        case McpApprovalRequest():
            return {
                "type": "mcp_approval_request",
                "server_label": item.server_label,
                "name": item.name,
                "arguments": item.arguments,
            }
        case McpApprovalResponse():
            return {
                "type": "mcp_approval_response",
                "approval_request_id": item.approval_request_id,
                "approve": item.is_approved,
                "reason": item.reason,
            }
        case _:
            assert_never(item)


def _content(part: Part, names: Mapping[str, str]) -> JsonObject:
    kind = names.get(part.type, part.type)
    if isinstance(part, TextPart):
        return {"type": kind, "text": part.text}
    if isinstance(part, ImagePart):
        image: JsonObject = {"type": kind, "detail": part.detail}
        if part.is_shown and part.picture is not None:
            image["image_url"] = part.picture.data_url
        return image
    written: JsonObject = {"type": kind, "transcript": part.remembered}
    if part.recording is not None:
        written |= {"audio": part.recording, "format": "pcm16"}
    return written


def part_json(part: TextPart | AudioPart) -> JsonObject:
    """Write a response's content part: its types are not renamed as items' contents are."""
    # Source: Realtime API reference, server events, response.content_part.added: the part of an
    # item whose content says "output_audio" is called "audio" here.
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    return {"type": "audio", "transcript": part.transcript}
