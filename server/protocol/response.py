"""Hold a response as clients see it."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from model.messages import Usage
from server.protocol.items.items import Item
from server.protocol.settings.config import max_output_tokens_json
from server.protocol.settings.request import ResponseRequest
from server.protocol.wire.checks import JsonObject

ResponseStatus: TypeAlias = Literal["in_progress", "completed", "cancelled", "failed", "incomplete"]


# Source: Realtime API reference, the response object: statuses, status_details, usage.
# `status_details` is {"type": "cancelled", "reason": "turn_detected"} for an interruption,
# "client_cancelled" for response.cancel, and {"type": "incomplete", "reason": "max_output_tokens"}
# at the limit.


@dataclass(frozen=True, slots=True)
class Response:
    """Hold one state of a response.

    Attributes:
        conversation_id: None for an out-of-band response.
        status_details: what the API tells beside a status that is not "completed".
        usage: None until the response is done.
    """

    id: str
    conversation_id: str | None
    request: ResponseRequest
    status: ResponseStatus = "in_progress"
    status_details: JsonObject | None = None
    output: tuple[Item, ...] = ()
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
            "image_tokens": usage.input_image_tokens,
            "cached_tokens": usage.input_cached_tokens,
            "cached_tokens_details": {
                "text_tokens": usage.input_cached_text_tokens,
                "audio_tokens": usage.input_cached_audio_tokens,
                "image_tokens": usage.input_cached_image_tokens,
            },
        },
        "output_token_details": {
            "text_tokens": usage.output_text_tokens,
            "audio_tokens": usage.output_audio_tokens,
        },
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
