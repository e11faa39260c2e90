"""Hold a response as clients see it, and check what a client asks of one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from model.engine.messages import Usage
from server.errors import ClientError
from server.protocol.checks import (
    JsonObject,
    choice_at,
    object_at,
    string_at,
    unsupported,
)
from server.protocol.items import Message
from server.protocol.session_config import (
    AudioFormat,
    Modality,
    SessionConfig,
    VoiceMap,
    max_output_tokens_json,
)
from server.protocol.session_update import (
    changed_voice,
    check_tool_choice,
    check_tools,
    parse_format,
    parse_max_output_tokens,
    parse_modalities,
)

ResponseStatus: TypeAlias = Literal["in_progress", "completed", "cancelled", "failed", "incomplete"]

# The API's limits on metadata: 16 pairs, keys of 64 and values of 512 characters.
_MAX_METADATA_PAIRS = 16
_MAX_METADATA_KEY = 64
_MAX_METADATA_VALUE = 512


@dataclass(frozen=True, slots=True)
class ResponseRequest:
    """Hold what one response is made with: the session's settings and the request's overrides."""

    modality: Modality
    voice: str
    output_format: AudioFormat
    max_output_tokens: int | None
    metadata: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """Hold one state of a response.

    Attributes:
        status_details: what the API tells beside a status that is not "completed".
        usage: None until the response is done.
    """

    id: str
    conversation_id: str
    request: ResponseRequest
    status: ResponseStatus = "in_progress"
    status_details: JsonObject | None = None
    output: tuple[Message, ...] = ()
    usage: Usage | None = None


def usage_json(usage: Usage) -> JsonObject:
    """Write token counts; the cached ones are a subset of the input, and all numbers are there."""
    return {
        "total_tokens": usage.total_tokens,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "input_token_details": {
            "text_tokens": usage.input_text_tokens,
            "audio_tokens": usage.input_audio_tokens,
            "image_tokens": 0,
            "cached_tokens": usage.input_cached_tokens,
            "cached_tokens_details": {
                "text_tokens": usage.input_cached_text_tokens,
                "audio_tokens": usage.input_cached_audio_tokens,
                "image_tokens": 0,
            },
        },
        "output_token_details": {
            "text_tokens": usage.output_text_tokens,
            "audio_tokens": usage.output_audio_tokens,
        },
    }


def session_request(config: SessionConfig) -> ResponseRequest:
    """Return the request that a session makes of itself, at the end of a turn."""
    return ResponseRequest(
        config.output_modality, config.voice, config.output_format, config.max_output_tokens
    )


def parse_request(
    raw: JsonObject, config: SessionConfig, voices: VoiceMap, *, is_voice_locked: bool
) -> ResponseRequest:
    """Check the `response` object of a `response.create`.

    Unknown keys are let through: client libraries of different ages send different ones. The
    instructions of a single response are checked and not used: the engine's prompt is the
    session's.
    """
    if raw.get("conversation") is not None:
        choice = choice_at(raw["conversation"], "response.conversation", ("auto", "none"))
        if choice == "none":
            reason = "Out-of-band responses are not available on this server yet."
            raise unsupported("response.conversation", reason)
    if raw.get("input") is not None:
        reason = "A response's own input is not available on this server yet."
        raise unsupported("response.input", reason)
    check_tools(raw.get("tools"), "response.tools")
    if raw.get("tool_choice") is not None:
        check_tool_choice(raw["tool_choice"], "response.tool_choice")
    if raw.get("instructions") is not None:
        string_at(raw["instructions"], "response.instructions")
    base = session_request(config)
    modality = base.modality
    if raw.get("output_modalities") is not None:
        modality = parse_modalities(raw["output_modalities"], "response.output_modalities")
    limit = base.max_output_tokens
    for key in ("max_output_tokens", "max_response_output_tokens"):
        if raw.get(key) is not None:
            limit = parse_max_output_tokens(raw[key], f"response.{key}")
    voice, output_format = base.voice, base.output_format
    if raw.get("audio") is not None:
        path = "response.audio.output"
        output = object_at(object_at(raw["audio"], "response.audio").get("output") or {}, path)
        if output.get("voice") is not None:
            voice = changed_voice(
                output["voice"], f"{path}.voice", voice, voices, is_locked=is_voice_locked
            )
        if output.get("format") is not None:
            output_format = parse_format(output["format"], f"{path}.format")
    return ResponseRequest(modality, voice, output_format, limit, _metadata(raw.get("metadata")))


def _metadata(raw: object) -> Mapping[str, str] | None:
    if raw is None:
        return None
    path = "response.metadata"
    given = object_at(raw, path)
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
            value, f"{path}.{key}", max_length=_MAX_METADATA_VALUE
        )
        for key, value in given.items()
    }


def response_json(response: Response, output: list[JsonObject]) -> JsonObject:
    """Write a response in the GA shape; `output` are its items as the dialect writes them."""
    request = response.request
    return {
        "object": "realtime.response",
        "id": response.id,
        "status": response.status,
        "status_details": response.status_details,
        "output": output,
        "conversation_id": response.conversation_id,
        "output_modalities": [request.modality],
        "max_output_tokens": max_output_tokens_json(request.max_output_tokens),
        "audio": {
            "output": {"format": request.output_format.to_json(), "voice": request.voice},
        },
        "usage": None if response.usage is None else usage_json(response.usage),
        "metadata": None if request.metadata is None else dict(request.metadata),
    }
