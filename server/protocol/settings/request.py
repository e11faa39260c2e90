"""Say what a response is made with: the session's settings, and what a client asks of one."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from server.config.delegate import DelegateAnswers
from server.errors import ClientError
from server.protocol.ids import Ids
from server.protocol.items.conversation import Conversation
from server.protocol.items.item_parse import Pictures, parse_item
from server.protocol.items.items import AudioPart, FunctionCall, Item, Message
from server.protocol.settings.audio import changed_voice, parse_format
from server.protocol.settings.config import AudioFormat, Modality, SessionConfig, VoiceMap
from server.protocol.settings.prompts import NO_PROMPTS, PromptBook
from server.protocol.settings.tools import (
    AnyTool,
    ToolChoice,
    check_choice_exists,
    parse_tool_choice,
    parse_tools,
)
from server.protocol.settings.update import (
    parse_delegate,
    parse_max_output_tokens,
    parse_modalities,
    parse_prompt,
    parse_temperature,
)
from server.protocol.wire.checks import (
    JsonObject,
    Parser,
    array_at,
    choice_at,
    object_at,
    required,
    string_at,
    unsupported,
)

Destination: TypeAlias = Literal["auto", "none"]

# Source: Realtime API reference, client events, response.create, metadata.
# The API's limits on metadata: 16 pairs, keys of 64 and values of 512 characters.
_MAX_METADATA_PAIRS = 16
_MAX_METADATA_KEY = 64
_MAX_METADATA_VALUE = 512


@dataclass(frozen=True, slots=True)
class ResponseRequest:
    """Hold what one response is made with.

    Attributes:
        speed: of its speech.
        instructions: of this response alone; None for the session's.
        destination: "auto" puts the output into the conversation, "none" keeps it out of band.
        input: the context in the conversation's place; None for the conversation.
        temperature: only beta clients see and set it; it has no effect.
        delegate: what a text model answers; None for what the server does.
    """

    modality: Modality
    voice: str
    output_format: AudioFormat
    max_output_tokens: int | None
    speed: float = 1.0
    tools: tuple[AnyTool, ...] = ()
    tool_choice: ToolChoice = "auto"
    instructions: str | None = None
    destination: Destination = "auto"
    input: tuple[Item, ...] | None = None
    metadata: Mapping[str, str] | None = None
    temperature: float = 0.8
    delegate: DelegateAnswers | None = None

    @property
    def is_aside(self) -> bool:
        """Say whether it needs another memory than the conversation's."""
        return self.destination == "none" or self.input is not None


def session_request(config: SessionConfig) -> ResponseRequest:
    """Return the request that a session makes of itself, at the end of a turn."""
    return ResponseRequest(
        config.output_modality,
        config.voice,
        config.output_format,
        config.max_output_tokens,
        config.speed,
        config.tools,
        config.tool_choice,
        temperature=config.temperature,
        delegate=config.delegate,
    )


def parse_request(  # noqa: PLR0913 - what a request can refer to, each of which is somebody's own
    raw: JsonObject,
    config: SessionConfig,
    voices: VoiceMap,
    conversation: Conversation,
    ids: Ids,
    pictures: Pictures = None,
    prompts: PromptBook = NO_PROMPTS,
    *,
    is_voice_locked: bool,
    max_tools: int,
) -> ResponseRequest:
    """Check the `response` object of a `response.create`.

    Unknown keys are let through: client libraries of different ages send different ones. So are
    `parallel_tool_calls` and `reasoning`, which mean nothing to our models.

    Raises:
        ClientError: with the path of the first thing that is wrong.
    """
    # A worked example: {"output_modalities": ["text"], "conversation": "none", "metadata": {"for":
    # "me"}} asks for a response in text, beside the conversation, which a client tells from others
    # by its metadata. All else is the session's. Source: Realtime guide, "Responses outside of the
    # default conversation".
    changes: dict[str, Any] = {}
    for key, (name, parse) in _FIELDS.items():
        if raw.get(key) is not None:
            changes[name] = parse(raw[key], f"response.{key}")
    if raw.get("tools") is not None:
        changes["tools"] = parse_tools(raw["tools"], "response.tools", max_tools=max_tools)
    if raw.get("audio") is not None:
        changes |= _audio(raw["audio"], config, voices, is_voice_locked=is_voice_locked)
    if raw.get("prompt") is not None:
        prompt = parse_prompt(raw["prompt"], "response.prompt")
        prompts.check(prompt, "response.prompt")
        changes.setdefault("instructions", prompts.text(prompt) or None)
    if raw.get("input") is not None:
        changes["input"] = _input(raw["input"], conversation, ids, pictures)
    request = replace(session_request(config), **changes)
    if "tool_choice" in changes:
        check_choice_exists(request.tool_choice, request.tools, "response.tool_choice")
    return request


def _audio(
    raw: object, config: SessionConfig, voices: VoiceMap, *, is_voice_locked: bool
) -> dict[str, Any]:
    path = "response.audio.output"
    output = object_at(object_at(raw, "response.audio").get("output") or {}, path)
    changes: dict[str, Any] = {}
    if output.get("voice") is not None:
        changes["voice"] = changed_voice(
            output["voice"], f"{path}.voice", config.voice, voices, is_locked=is_voice_locked
        )
    if output.get("format") is not None:
        changes["output_format"] = parse_format(output["format"], f"{path}.format")
    return changes


def _input(
    raw: object, conversation: Conversation, ids: Ids, pictures: Pictures
) -> tuple[Item, ...]:
    """Check the items that take the conversation's place."""
    # Source: Realtime API reference, client events, response.create, input: items in the place of
    # the conversation, or references to it; an empty list is a context without any.
    items: list[Item] = []

    def called_name(call_id: str) -> str | None:
        given = [item for item in items if isinstance(item, FunctionCall)]
        names = [call.name for call in given if call.call_id == call_id]
        return names[0] if names else conversation.called_name(call_id)

    for index, entry in enumerate(array_at(raw, "response.input")):
        path = f"response.input[{index}]"
        item = object_at(entry, path)
        if item.get("type") == "item_reference":
            items.append(_referred(item, path, conversation))
        else:
            given_item = parse_item(item, path, ids, called_name, pictures)
            _refuse_sound(given_item, path)
            conversation.check_pictures(given_item)
            items.append(given_item)
    return tuple(items)


def _refuse_sound(item: Item, path: str) -> None:
    for index, part in enumerate(item.content if isinstance(item, Message) else ()):
        if isinstance(part, AudioPart) and part.transcript is None:
            reason = "Refer to an item of the conversation for audio without a transcript."
            raise unsupported(f"{path}.content[{index}].audio", reason)


def _referred(raw: JsonObject, path: str, conversation: Conversation) -> Item:
    item_id = string_at(required(raw, "id", path), f"{path}.id")
    if item_id not in conversation:
        raise ClientError(
            f"Error referencing item: the item with id '{item_id}' does not exist.",
            code="invalid_value",
            param=f"{path}.id",
        )
    return conversation[item_id]


def _parse_destination(value: object, path: str) -> Destination:
    destinations: tuple[Destination, ...] = ("auto", "none")
    return choice_at(value, path, destinations)


def _parse_metadata(value: object, path: str) -> Mapping[str, str]:
    given = object_at(value, path)
    if len(given) > _MAX_METADATA_PAIRS:
        raise ClientError(
            f"Invalid '{path}': too many properties. Expected an object with at most "
            f"{_MAX_METADATA_PAIRS} properties, but got an object with {len(given)} properties "
            "instead.",
            code="object_above_max_properties",
            param=path,
        )
    return {
        string_at(key, path, max_length=_MAX_METADATA_KEY): string_at(
            entry, f"{path}.{key}", max_length=_MAX_METADATA_VALUE
        )
        for key, entry in given.items()
    }


# Key on the wire → field of `ResponseRequest` and its parser.
_FIELDS: Mapping[str, tuple[str, Parser[object]]] = {
    "conversation": ("destination", _parse_destination),
    "output_modalities": ("modality", parse_modalities),
    "instructions": ("instructions", string_at),
    "tool_choice": ("tool_choice", parse_tool_choice),
    "max_output_tokens": ("max_output_tokens", parse_max_output_tokens),
    # The beta documentation of April 2025 calls it so.
    "max_response_output_tokens": ("max_output_tokens", parse_max_output_tokens),
    "metadata": ("metadata", _parse_metadata),
    "temperature": ("temperature", parse_temperature),
    "delegate": ("delegate", parse_delegate),
}
