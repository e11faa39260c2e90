"""Check items as clients send them."""

from collections.abc import Callable, Mapping
from typing import TypeAlias, cast

from server.errors import ClientError
from server.images.picture import Picture
from server.protocol.ids import Ids
from server.protocol.items.items import (
    AudioPart,
    FunctionCall,
    FunctionCallOutput,
    ImagePart,
    Item,
    Message,
    Part,
    Role,
    TextPart,
)
from server.protocol.items.mcp import McpApprovalResponse
from server.protocol.wire.checks import (
    JsonObject,
    array_at,
    boolean_at,
    choice_at,
    invalid_choice,
    object_at,
    required,
    string_at,
    unsupported,
)

MAX_ID_LENGTH = 32  # Realtime API reference, conversation items, `id`
_OURS = ("mcp_approval_request", "mcp_call", "mcp_list_tools")

Pictures: TypeAlias = Mapping[str, Picture] | None
"""The pictures of an event by their parts' paths, read; None where the model cannot see."""


def parse_item(
    raw: JsonObject,
    path: str,
    ids: Ids,
    called_name: Callable[[str], str | None],
    pictures: Pictures = None,
) -> Item:
    """Return an item, checked.

    Args:
        raw: the item's object.
        path: where the client sent it, such as "item".
        ids: makes the ids that the client did not give.
        called_name: returns the name of the function that a call of the conversation called.
        pictures: of the event.

    Raises:
        ClientError: with the path of the first thing that is wrong.
    """
    kind = string_at(required(raw, "type", path), f"{path}.type")
    if kind in _OURS:
        raise unsupported(f"{path}.type", f"Items of type '{kind}' are made by the server only.")
    if kind not in ("message", *_PARSERS):
        raise invalid_choice(kind, f"{path}.type", ("message", *_PARSERS))
    item_id = _id_at(raw, "id", path) or ids.new("item")
    if kind == "message":
        return _message(raw, path, item_id, pictures)
    return _PARSERS[kind](raw, path, item_id, ids, called_name)


_Parser = Callable[[JsonObject, str, str, Ids, Callable[[str], str | None]], Item]


def _message(raw: JsonObject, path: str, item_id: str, pictures: Pictures) -> Message:
    roles = ("user", "assistant", "system")
    role = cast("Role", choice_at(required(raw, "role", path), f"{path}.role", roles))
    content = array_at(required(raw, "content", path), f"{path}.content")
    parts = (
        _parse_part(part, role, f"{path}.content[{index}]", pictures)
        for index, part in enumerate(content)
    )
    return Message(item_id, role, "completed", tuple(parts))


def _call(
    raw: JsonObject, path: str, item_id: str, ids: Ids, _called_name: Callable[[str], str | None]
) -> FunctionCall:
    name = string_at(required(raw, "name", path), f"{path}.name")
    arguments = string_at(required(raw, "arguments", path), f"{path}.arguments")
    call_id = _id_at(raw, "call_id", path) or ids.new("call")
    # Source: Realtime API reference, conversation items, function_call. A client that replays its
    # history sends calls as well.
    # A call without arguments is one with an empty object: clients refuse an empty string.
    return FunctionCall(item_id, "completed", call_id, name, arguments or "{}")


def _call_output(
    raw: JsonObject, path: str, item_id: str, _ids: Ids, called_name: Callable[[str], str | None]
) -> FunctionCallOutput:
    call_id = string_at(required(raw, "call_id", path), f"{path}.call_id")
    output = string_at(required(raw, "output", path), f"{path}.output")
    # Source: Realtime API reference, conversation items, function_call_output. The model remembers
    # an output under the function's name, so the call has to be there.
    name = called_name(call_id)
    if name is None:
        raise ClientError(
            f"Tool call ID '{call_id}' not found in conversation.", code="invalid_tool_call_id"
        )
    return FunctionCallOutput(item_id, call_id, name, output)


_PARSERS: dict[str, _Parser] = {
    "function_call": _call,
    "function_call_output": _call_output,
}


def parse_approval(
    raw: JsonObject, path: str, ids: Ids, called_by: Callable[[str], str | None]
) -> McpApprovalResponse:
    """Return an answer to a request for approval, checked; some clients give it no id.

    Args:
        raw: the item's object.
        path: where the client sent it, such as "item".
        ids: makes the id that the client did not give.
        called_by: returns what the model calls the tool that a request is about; None if there is
            no such request, or it has been answered.

    Raises:
        ClientError: with the path of the first thing that is wrong.
    """
    key = f"{path}.approval_request_id"
    request_id = string_at(required(raw, "approval_request_id", path), key)
    is_approved = boolean_at(required(raw, "approve", path), f"{path}.approve")
    reason = raw.get("reason")
    if reason is not None:
        string_at(reason, f"{path}.reason")
    called = called_by(request_id)
    if called is None:
        raise ClientError(
            f"No approval request with id '{request_id}' waits for an answer.",
            code="invalid_approval_request_id",
            param=key,
        )
    item_id = _id_at(raw, "id", path) or ids.new("item")
    return McpApprovalResponse(item_id, request_id, is_approved, reason, called)


def _id_at(raw: JsonObject, key: str, path: str) -> str | None:
    """Return an id that the client gave; an empty one counts as none."""
    given = raw.get(key)
    if given is None:
        return None
    return string_at(given, f"{path}.{key}", max_length=MAX_ID_LENGTH) or None


# Source: Realtime API reference, conversation items, message: users have input_text, input_audio
# and input_image, the system input_text, the assistant output_text and output_audio.
#
# Which content a role may have; the names on the right are what the item then holds. The beta
# names `text` and `audio` are taken too, because old histories are replayed with them.
_PART_TYPES: dict[Role, dict[str, str]] = {
    "user": {"input_text": "input_text", "input_audio": "input_audio"},
    "system": {"input_text": "input_text"},
    "assistant": {
        "output_text": "output_text",
        "output_audio": "output_audio",
        "text": "output_text",
        "audio": "output_audio",
    },
}


def _parse_part(raw: object, role: Role, path: str, pictures: Pictures) -> Part:
    part = object_at(raw, path)
    kind = string_at(required(part, "type", path), f"{path}.type")
    if role == "user" and kind == "input_image":
        if pictures is None:
            raise unsupported(f"{path}.type", "The model that is served here cannot see images.")
        return ImagePart(part.get("detail") or "auto", pictures[path])
    if kind not in _PART_TYPES[role]:
        raise invalid_choice(kind, f"{path}.type", tuple(_PART_TYPES[role]))
    match _PART_TYPES[role][kind]:
        case "input_text" | "output_text" as text_type:
            text = string_at(required(part, "text", path), f"{path}.text")
            return TextPart(text_type, text)
        case audio_type:
            transcript = part.get("transcript")
            if transcript is not None:
                string_at(transcript, f"{path}.transcript")
            elif "audio" not in part:
                missing_key = "audio" if role == "user" else "transcript"
                required(part, missing_key, path)
            if audio_type == "input_audio":
                return AudioPart("input_audio", transcript)
            return AudioPart("output_audio", transcript or "")
