"""Speak the beta shape of the Realtime API: flat sessions and older event names.

Many applications and devices still send it. Everything here is renaming: what a beta client asks
for is checked by the same code as GA, and refusals are renamed back.
"""

from dataclasses import fields
from typing import Any

from server.errors import ClientError
from server.protocol.checks import (
    JsonObject,
    array_at,
    choice_at,
    decimal_at,
    object_at,
    string_at,
)
from server.protocol.dialect import error_json, item_json, part_json
from server.protocol.events import (
    ErrorEvent,
    ItemAdded,
    ItemDone,
    OutputAudioDelta,
    OutputAudioDone,
    OutputAudioTranscriptDelta,
    OutputAudioTranscriptDone,
    OutputTextDelta,
    OutputTextDone,
    ServerEvent,
)
from server.protocol.items import AudioPart, Message, TextPart
from server.protocol.response import Response, usage_json
from server.protocol.session_config import (
    AudioFormat,
    Modality,
    SessionConfig,
    max_output_tokens_json,
)

_NAMES: dict[str, str | None] = {
    ItemAdded.type: "conversation.item.created",
    ItemDone.type: None,
    OutputTextDelta.type: "response.text.delta",
    OutputTextDone.type: "response.text.done",
    OutputAudioDelta.type: "response.audio.delta",
    OutputAudioDone.type: "response.audio.done",
    OutputAudioTranscriptDelta.type: "response.audio_transcript.delta",
    OutputAudioTranscriptDone.type: "response.audio_transcript.done",
}
_CONTENT_TYPES = {"output_text": "text", "output_audio": "audio"}
_FORMATS = {"pcm16": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
_FORMAT_NAMES = {ga: beta for beta, ga in _FORMATS.items()}

# Beta key of the session → where GA has it.
_SESSION_KEYS: dict[str, tuple[str, ...]] = {
    "input_audio_format": ("audio", "input", "format"),
    "input_audio_transcription": ("audio", "input", "transcription"),
    "input_audio_noise_reduction": ("audio", "input", "noise_reduction"),
    "turn_detection": ("audio", "input", "turn_detection"),
    "output_audio_format": ("audio", "output", "format"),
    "voice": ("audio", "output", "voice"),
    "speed": ("audio", "output", "speed"),
    "modalities": ("output_modalities",),
    "max_response_output_tokens": ("max_output_tokens",),
}
# The first documentation called it so; both are understood.
_SESSION_ALIASES = {"max_output_tokens": "max_response_output_tokens"}
_RESPONSE_KEYS: dict[str, tuple[str, ...]] = {
    "modalities": ("output_modalities",),
    "voice": ("audio", "output", "voice"),
    "output_audio_format": ("audio", "output", "format"),
}
_MIN_TEMPERATURE, _MAX_TEMPERATURE = 0.6, 1.2


class BetaDialect:
    """Translate between the beta wire and the internal vocabulary, for one connection."""

    def __init__(self) -> None:
        # GA has no temperature; here it is checked and echoed.
        self._temperature = 0.8

    def read(self, raw: JsonObject) -> JsonObject:
        """Return a client's decoded event in the internal vocabulary."""
        match raw.get("type"):
            case "session.update" if isinstance(raw.get("session"), dict):
                return {**raw, "session": self._session(raw["session"])}
            case "response.create" if isinstance(raw.get("response"), dict):
                return {**raw, "response": self._response(raw["response"])}
            case "conversation.item.create" if isinstance(raw.get("item"), dict):
                return {**raw, "item": {"type": "message", **raw["item"]}}
            case _:
                return raw

    def write(self, event: ServerEvent, event_id: str) -> JsonObject | None:
        """Return the event's JSON object, None for an event that beta does not have."""
        if isinstance(event, ErrorEvent):
            return _renamed_error(error_json(event, event_id))
        name = _NAMES.get(event.type, event.type)
        if name is None:
            return None
        written: JsonObject = {"type": name, "event_id": event_id}
        for each in fields(event):
            written[each.name] = self._value(getattr(event, each.name))
        return written

    def _session(self, session: JsonObject) -> JsonObject:
        self._check_temperature(session, "session")
        kept = {
            _SESSION_ALIASES.get(key, key): value
            for key, value in session.items()
            if key not in ("temperature", "type", "client_secret")
        }
        detection = kept.get("turn_detection")
        if isinstance(detection, dict) and detection.get("type") == "none":
            # Very early clients switch detection off so.
            kept["turn_detection"] = None
        transcription = kept.get("input_audio_transcription")
        if isinstance(transcription, dict):
            kept["input_audio_transcription"] = {
                key: value for key, value in transcription.items() if key != "enabled"
            }
        return {"type": "realtime", **_moved(kept, _SESSION_KEYS, "session")}

    def _response(self, response: JsonObject) -> JsonObject:
        self._check_temperature(response, "response")
        return _moved(response, _RESPONSE_KEYS, "response")

    def _check_temperature(self, given: JsonObject, path: str) -> None:
        if given.get("temperature") is None:
            return
        temperature = decimal_at(
            given["temperature"],
            f"{path}.temperature",
            low=_MIN_TEMPERATURE,
            high=_MAX_TEMPERATURE,
        )
        if path == "session":
            self._temperature = temperature

    def _value(self, value: Any) -> Any:
        """Write one field; `Any` because a field holds whatever its event declares."""
        match value:
            case Message():
                return item_json(value, _content)
            case TextPart() | AudioPart():
                return part_json(value)
            case Response():
                return self._response_json(value)
            case SessionConfig():
                return self._session_json(value)
            case tuple():
                return list(value)
            case _:
                return value

    def _session_json(self, config: SessionConfig) -> JsonObject:
        ga = config.to_json()
        audio_in, audio_out = ga["audio"]["input"], ga["audio"]["output"]
        return {
            "id": config.id,
            "object": "realtime.session",
            "model": config.model,
            "modalities": _modalities(config.output_modality),
            "instructions": config.instructions,
            "voice": config.voice,
            "turn_detection": audio_in["turn_detection"],
            "input_audio_format": _format_name(config.input_format),
            "output_audio_format": _format_name(config.output_format),
            "input_audio_transcription": audio_in["transcription"],
            "input_audio_noise_reduction": audio_in["noise_reduction"],
            "tools": ga["tools"],
            "tool_choice": ga["tool_choice"],
            "temperature": self._temperature,
            "max_response_output_tokens": ga["max_output_tokens"],
            "speed": audio_out["speed"],
            "tracing": config.tracing,
            "expires_at": config.expires_at,
            "include": ga["include"],
            "client_secret": None,
        }

    def _response_json(self, response: Response) -> JsonObject:
        request = response.request
        return {
            "object": "realtime.response",
            "id": response.id,
            "status": response.status,
            "status_details": response.status_details,
            "output": [item_json(item, _content) for item in response.output],
            "conversation_id": response.conversation_id,
            "modalities": _modalities(request.modality),
            "voice": request.voice,
            "output_audio_format": _format_name(request.output_format),
            "temperature": self._temperature,
            "max_output_tokens": max_output_tokens_json(request.max_output_tokens),
            "usage": None if response.usage is None else usage_json(response.usage),
            "metadata": None if request.metadata is None else dict(request.metadata),
        }


def _moved(given: JsonObject, keys: dict[str, tuple[str, ...]], path: str) -> JsonObject:
    """Return an object with its beta keys where GA has them."""
    moved: JsonObject = {}
    for key, value in given.items():
        *sections, last = keys.get(key, (key,))
        place = moved
        for section in sections:
            place = object_at(place.setdefault(section, {}), f"{path}.{section}")
        place[last] = _ga_value(key, value, f"{path}.{key}")
    return moved


def _ga_value(key: str, value: Any, path: str) -> Any:
    """Translate the values that beta writes differently."""
    if key in ("input_audio_format", "output_audio_format") and value is not None:
        return {"type": _FORMATS[choice_at(value, path, tuple(_FORMATS))]}
    if key == "modalities":
        names = [string_at(name, path) for name in array_at(value, path)]
        if names == ["text"]:
            return ["text"]
        if sorted(names) == ["audio", "text"]:
            return ["audio"]
        raise ClientError(
            f"Invalid modalities: {names}. Supported combinations are: ['text'] and "
            "['audio', 'text'].",
            code="invalid_value",
            param=path,
        )
    return value


def _renamed_error(error: JsonObject) -> JsonObject:
    """Name a refused parameter as the client wrote it."""
    details = error["error"]
    for section, keys in (("session", _SESSION_KEYS), ("response", _RESPONSE_KEYS)):
        for beta, ga in keys.items():
            ga_path, beta_path = ".".join((section, *ga)), f"{section}.{beta}"
            if details["param"] is not None and details["param"].startswith(ga_path):
                details["param"] = details["param"].replace(ga_path, beta_path, 1)
                details["message"] = details["message"].replace(ga_path, beta_path, 1)
                return error
    return error


def _content(part: TextPart | AudioPart) -> JsonObject:
    kind = _CONTENT_TYPES.get(part.type, part.type)
    if isinstance(part, TextPart):
        return {"type": kind, "text": part.text}
    return {"type": kind, "transcript": part.transcript}


def _modalities(modality: Modality) -> list[str]:
    return ["audio", "text"] if modality == "audio" else ["text"]


def _format_name(audio_format: AudioFormat) -> str:
    return _FORMAT_NAMES[audio_format.encoding]
