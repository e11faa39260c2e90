"""Speak the beta shape of the Realtime API: flat objects and older event names.

Many applications and devices still send it. `GuessingDialect` is for clients that did not say
which shape they speak.
"""

from dataclasses import replace
from typing import Any

from server.errors import ClientError
from server.protocol.dialects.beta_session import (
    SESSION_PLACES,
    Places,
    format_name,
    looks_beta,
    modalities,
    moved,
    read_session,
    read_transcription_session,
    renamed,
    session_json,
)
from server.protocol.dialects.ga import SENT_FIELDS, Dialect, GaDialect, error_json
from server.protocol.items.item_json import item_json, part_json
from server.protocol.items.items import (
    AudioPart,
    Item,
    TextPart,
)
from server.protocol.response import Response, usage_json
from server.protocol.server_events import (
    ErrorEvent,
    InputTranscriptionDelta,
    ItemAdded,
    ItemDone,
    OutputAudioDelta,
    OutputAudioDone,
    OutputAudioTranscriptDelta,
    OutputAudioTranscriptDone,
    OutputTextDelta,
    OutputTextDone,
    ServerEvent,
    SessionCreated,
    SessionUpdated,
    TimeoutTriggered,
)
from server.protocol.settings.config import SessionConfig, max_output_tokens_json
from server.protocol.wire.checks import JsonObject

# A worked example, the same moment in both shapes:
#
#     GA      {"type": "response.output_audio.delta", "delta": ...}
#     beta    {"type": "response.audio.delta", "delta": ...}
#
# and a session.update of a beta client, on its way in:
#
#     beta    {"modalities": ["text"], "input_audio_format": "g711_ulaw"}
#     GA      {"type": "realtime", "output_modalities": ["text"],
#              "audio": {"input": {"format": {"type": "audio/pcmu"}}}}
#
# Source: Realtime guide, "Beta to GA migration". The wire's own names count: the published beta
# schema of 2026 gives GA's names to beta's events, which no client of beta understands.
#
# GA's name of an event -> beta's; None for an event that beta does not have.
_NAMES: dict[str, str | None] = {
    ItemAdded.type: "conversation.item.created",
    ItemDone.type: None,
    TimeoutTriggered.type: None,
    OutputTextDelta.type: "response.text.delta",
    OutputTextDone.type: "response.text.done",
    OutputAudioDelta.type: "response.audio.delta",
    OutputAudioDone.type: "response.audio.done",
    OutputAudioTranscriptDelta.type: "response.audio_transcript.delta",
    OutputAudioTranscriptDone.type: "response.audio_transcript.done",
}
# Source: Realtime guide, "Beta to GA migration", content types.
_CONTENT_TYPES = {"output_text": "text", "output_audio": "audio"}
_RESPONSE_PLACES: Places = {
    "modalities": ("output_modalities",),
    "voice": ("audio", "output", "voice"),
    "output_audio_format": ("audio", "output", "format"),
}


class BetaDialect:
    """Translate between the beta wire and the internal vocabulary.

    Args:
        has_transcript_deltas: whether users' transcripts come as deltas before they are whole,
            as since 2025. Older clients end a connection at an event that they do not know.
    """

    def __init__(self, *, has_transcript_deltas: bool = True) -> None:
        self._has_transcript_deltas = has_transcript_deltas

    def read(self, raw: JsonObject) -> JsonObject:
        """Return a client's decoded event in the internal vocabulary."""
        match raw:
            case {"type": "session.update", "session": dict() as session}:
                return {**raw, "session": read_session(session)}
            case {"type": "transcription_session.update", "session": dict() as session}:
                translated = read_transcription_session(session)
                return {**raw, "type": "session.update", "session": translated}
            case {"type": "response.create", "response": dict() as response}:
                return {**raw, "response": _read_response(response)}
            case {"type": "conversation.item.create", "item": dict() as item}:
                return {**raw, "item": _read_item(item)}
            case _:
                return raw

    def write(self, event: ServerEvent, event_id: str) -> JsonObject | None:
        """Return the event's JSON object, None for an event that beta does not have."""
        if isinstance(event, ErrorEvent):
            return error_json(_renamed_error(event), event_id)
        name = _NAMES.get(event.type, event.type)
        if name is None:
            return None
        if isinstance(event, InputTranscriptionDelta) and not self._has_transcript_deltas:
            return None
        if isinstance(event, SessionCreated | SessionUpdated):
            name = f"transcription_{name}" if event.session.kind == "transcription" else name
        written: JsonObject = {"type": name, "event_id": event_id}
        for field in SENT_FIELDS[type(event)]:
            written[field] = _value(getattr(event, field))
        return written


class GuessingDialect:
    """Speak GA, or beta from the first `session.update` on if it is in that shape."""

    def __init__(self) -> None:
        self._dialect: Dialect = GaDialect()
        self._has_guessed = False

    def read(self, raw: JsonObject) -> JsonObject:
        """Return a client's decoded event in the internal vocabulary."""
        match raw:
            case {"type": "transcription_session.update"} if not self._has_guessed:
                self._guess(is_beta=True)
            case {"type": "session.update", "session": dict() as session} if not self._has_guessed:
                self._guess(is_beta=looks_beta(session))
        return self._dialect.read(raw)

    def write(self, event: ServerEvent, event_id: str) -> JsonObject | None:
        """Return the event's JSON object, None where the dialect has no such event."""
        return self._dialect.write(event, event_id)

    # The first session.update decides, for good: a client does not change its shape midway, and
    # what was sent to it before, `session.created`, both shapes understand.
    def _guess(self, *, is_beta: bool) -> None:
        self._has_guessed = True
        if is_beta:
            self._dialect = BetaDialect()


def _read_response(response: JsonObject) -> JsonObject:
    translated = moved(response, _RESPONSE_PLACES, "response")
    given = translated.get("input")
    if isinstance(given, list):
        items = [_read_item(item) if isinstance(item, dict) else item for item in given]
        translated["input"] = items
    return translated


def _read_item(item: JsonObject) -> JsonObject:
    """Return an item with the type that beta lets clients leave out."""
    return {"type": "message", **item}


def _renamed_error(event: ErrorEvent) -> ErrorEvent:
    """Name a refused parameter as the client wrote it."""
    error = ClientError(event.message, code=event.code, param=event.param)
    for path, places in (("session", SESSION_PLACES), ("response", _RESPONSE_PLACES)):
        error = renamed(error, places, path)
    return replace(event, message=error.message, param=error.param)


def _value(value: Any) -> Any:
    """Write one field; `Any` because a field holds whatever its event declares."""
    match value:
        case _ if isinstance(value, Item):
            return _item_json(value)
        case TextPart() | AudioPart():
            return part_json(value)
        case Response():
            return _response_json(value)
        case SessionConfig():
            return session_json(value)
        case tuple():
            return list(value)
        case _:
            return value


def _item_json(item: Item) -> JsonObject:
    written = item_json(item, _CONTENT_TYPES)
    for part in written.get("content", ()):
        # GA says in which format a retrieved item's audio is.
        part.pop("format", None)
    return written


def _response_json(response: Response) -> JsonObject:
    request = response.request
    return {
        "object": "realtime.response",
        "id": response.id,
        "status": response.status,
        "status_details": response.status_details,
        "output": [_item_json(item) for item in response.output],
        "conversation_id": response.conversation_id,
        "modalities": modalities(request.modality),
        "voice": request.voice,
        "output_audio_format": format_name(request.output_format),
        "temperature": request.temperature,
        "max_output_tokens": max_output_tokens_json(request.max_output_tokens),
        "usage": None if response.usage is None else usage_json(response.usage),
        "metadata": None if request.metadata is None else dict(request.metadata),
    }
