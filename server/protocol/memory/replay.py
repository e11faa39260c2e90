"""Put items into an engine's memory."""

from collections.abc import Callable
from typing import assert_never

from model.messages import (
    AppendAudio,
    AppendCall,
    AppendCallOutput,
    AppendText,
    Command,
    CommitAudio,
    Pcm,
)
from server.protocol.items.items import FunctionCall, FunctionCallOutput, Item, Message
from server.protocol.items.mcp import (
    McpApprovalRequest,
    McpApprovalResponse,
    McpCall,
    McpListTools,
    McpReturned,
)


def replayed(  # noqa: PLR0911 - a case each
    session_id: str, item: Item | McpReturned, sound_of: Callable[[str], Pcm | None] | None = None
) -> list[Command]:
    """Return the commands that make an engine remember an item.

    Args:
        session_id: names the memory.
        item: of which only what was said, heard or called completely is remembered.
        sound_of: returns an item's sound, for what a user said and whose words are not known yet.
    """
    match item:
        case Message() if item.words or (item.role == "user" and item.is_known):
            # A turn without words is a turn all the same: silence, or noise.
            return [
                AppendText(session_id, item.id, item.role, _text(words), images)
                for words, images in item.sections
            ]
        case Message():
            sound = sound_of(item.id) if sound_of is not None and item.role == "user" else None
            images = tuple(picture.pixels for picture in item.pictures)
            if sound is not None:
                commit = CommitAudio(session_id, item.id, images=images)
                return [AppendAudio(session_id, sound), commit]
            # What was said is lost, and what was shown is not.
            return [AppendText(session_id, item.id, item.role, "", images)] if images else []
        case FunctionCall(status="completed"):
            name, arguments = _text(item.name), _text(item.arguments)
            return [AppendCall(session_id, item.id, name, arguments)]
        case FunctionCall():
            return []
        case FunctionCallOutput():
            name, output = _text(item.name), _text(item.output)
            return [AppendCallOutput(session_id, item.id, name, output)]
        case McpApprovalRequest() | McpCall(approval_request_id=None):
            return [AppendCall(session_id, item.id, _text(item.called), _text(item.arguments))]
        case McpApprovalResponse(is_approved=False):
            return [AppendCallOutput(session_id, item.id, _text(item.called), _text(item.told))]
        case McpReturned():
            return [AppendCallOutput(session_id, item.id, _text(item.called), _text(item.output))]
        case McpListTools() | McpCall() | McpApprovalResponse():
            # A call that was asked for is remembered from its request on.
            return []
        case _:
            assert_never(item)


def _text(text: str) -> str:
    """Return text without the halves of surrogate pairs that JSON can carry."""
    return text.encode("utf-8", "replace").decode("utf-8")
