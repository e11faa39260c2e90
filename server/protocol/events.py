"""Define the events of the protocol: one frozen type per event, in the internal (GA) vocabulary.

Client events are parsed by `server.protocol.parse`; server events are written to the wire by a
dialect (`server.protocol.dialect`). `Heard` events come from the session's own ears: input audio
at the engine's rate, and where speech begins and ends in it.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from model.engine.messages import Command, Pcm
from server.protocol.checks import JsonObject
from server.protocol.items import Item, Part
from server.protocol.response import Response
from server.protocol.session_config import SessionConfig

# Client events. `event_id` is the client's own, echoed in the error that the event may cause.


@dataclass(frozen=True, slots=True)
class SessionUpdate:
    """Change parts of the session's configuration; `session` is the raw patch."""

    type: ClassVar[str] = "session.update"
    event_id: str | None
    session: JsonObject


@dataclass(frozen=True, slots=True)
class InputAudioBufferAppend:
    """Append audio; `audio` is base64 in the session's input format."""

    type: ClassVar[str] = "input_audio_buffer.append"
    event_id: str | None
    audio: str


@dataclass(frozen=True, slots=True)
class InputAudioBufferCommit:
    """End the user's turn by hand."""

    type: ClassVar[str] = "input_audio_buffer.commit"
    event_id: str | None


@dataclass(frozen=True, slots=True)
class InputAudioBufferClear:
    """Forget the audio that is not committed."""

    type: ClassVar[str] = "input_audio_buffer.clear"
    event_id: str | None


@dataclass(frozen=True, slots=True)
class ItemCreate:
    """Add an item; `item` is raw, because checking it needs the conversation.

    Attributes:
        previous_item_id: None to append, "root" for the front, else the item to insert after.
    """

    type: ClassVar[str] = "conversation.item.create"
    event_id: str | None
    item: JsonObject
    previous_item_id: str | None


@dataclass(frozen=True, slots=True)
class ItemRetrieve:
    """Ask for an item as the server has it."""

    type: ClassVar[str] = "conversation.item.retrieve"
    event_id: str | None
    item_id: str


@dataclass(frozen=True, slots=True)
class ItemTruncate:
    """Say that an assistant item was only heard up to `audio_end_ms`."""

    type: ClassVar[str] = "conversation.item.truncate"
    event_id: str | None
    item_id: str
    content_index: int
    audio_end_ms: int


@dataclass(frozen=True, slots=True)
class ItemDelete:
    """Remove an item from the conversation."""

    type: ClassVar[str] = "conversation.item.delete"
    event_id: str | None
    item_id: str


@dataclass(frozen=True, slots=True)
class ResponseCreate:
    """Ask for a response; `response` holds the raw overrides."""

    type: ClassVar[str] = "response.create"
    event_id: str | None
    response: JsonObject


@dataclass(frozen=True, slots=True)
class ResponseCancel:
    """Stop the response in progress."""

    type: ClassVar[str] = "response.cancel"
    event_id: str | None
    response_id: str | None


ClientEvent: TypeAlias = (
    SessionUpdate
    | InputAudioBufferAppend
    | InputAudioBufferCommit
    | InputAudioBufferClear
    | ItemCreate
    | ItemRetrieve
    | ItemTruncate
    | ItemDelete
    | ResponseCreate
    | ResponseCancel
)


# What the session's own ears report, in the order of the audio.


@dataclass(frozen=True, slots=True, eq=False)
class InputAudio:
    """More input audio: float32 [samples] at the engine's rate."""

    pcm: Pcm


@dataclass(frozen=True, slots=True)
class SpeechBegan:
    """Speech began; the turn's audio starts at `audio_start_ms` of all appended audio."""

    audio_start_ms: int


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    """The turn ended; its audio, trailing silence included, ends at `audio_end_ms`."""

    audio_end_ms: int


@dataclass(frozen=True, slots=True)
class SpeechPaused:
    """The turn may have ended, or the user goes on: `SpeechEnded` or `SpeechResumed` follows."""


@dataclass(frozen=True, slots=True)
class SpeechResumed:
    """The user goes on after `SpeechPaused`."""


Heard: TypeAlias = InputAudio | SpeechBegan | SpeechPaused | SpeechResumed | SpeechEnded


@dataclass(frozen=True, slots=True)
class NoSlot:
    """The engine has no slot free for a response that needs one of its own.

    Attributes:
        session_id: under which the engine was to open it.
    """

    session_id: str


# Server events. A dialect adds `type` and `event_id`.


@dataclass(frozen=True, slots=True)
class ErrorEvent:
    """Refuse one client event (`event_id` is the client's), or report our own fault."""

    type: ClassVar[str] = "error"
    kind: str
    code: str | None
    message: str
    param: str | None
    client_event_id: str | None


@dataclass(frozen=True, slots=True)
class SessionCreated:
    """Open the session; always the first event."""

    type: ClassVar[str] = "session.created"
    session: SessionConfig


@dataclass(frozen=True, slots=True)
class SessionUpdated:
    """Acknowledge an update with the whole effective session."""

    type: ClassVar[str] = "session.updated"
    session: SessionConfig


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Announce the user item that the speech will become."""

    type: ClassVar[str] = "input_audio_buffer.speech_started"
    audio_start_ms: int
    item_id: str


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """Say where the announced item's audio ends."""

    type: ClassVar[str] = "input_audio_buffer.speech_stopped"
    audio_end_ms: int
    item_id: str


@dataclass(frozen=True, slots=True)
class InputAudioBufferCommitted:
    """Say that the buffered audio became an item."""

    type: ClassVar[str] = "input_audio_buffer.committed"
    previous_item_id: str | None
    item_id: str


@dataclass(frozen=True, slots=True)
class TimeoutTriggered:
    """Say that the user was silent for too long; the silence becomes an item."""

    type: ClassVar[str] = "input_audio_buffer.timeout_triggered"
    audio_start_ms: int
    audio_end_ms: int
    item_id: str


@dataclass(frozen=True, slots=True)
class InputAudioBufferCleared:
    """Acknowledge a clear."""

    type: ClassVar[str] = "input_audio_buffer.cleared"


@dataclass(frozen=True, slots=True)
class ItemAdded:
    """Put an item into the conversation; assistant items are still in progress."""

    type: ClassVar[str] = "conversation.item.added"
    previous_item_id: str | None
    item: Item


@dataclass(frozen=True, slots=True)
class ItemDone:
    """Say that an item is final."""

    type: ClassVar[str] = "conversation.item.done"
    previous_item_id: str | None
    item: Item


@dataclass(frozen=True, slots=True)
class ItemRetrieved:
    """Answer a retrieve."""

    type: ClassVar[str] = "conversation.item.retrieved"
    item: Item


@dataclass(frozen=True, slots=True)
class ItemTruncated:
    """Acknowledge a truncation."""

    type: ClassVar[str] = "conversation.item.truncated"
    item_id: str
    content_index: int
    audio_end_ms: int


@dataclass(frozen=True, slots=True)
class ItemDeleted:
    """Acknowledge a deletion."""

    type: ClassVar[str] = "conversation.item.deleted"
    item_id: str


@dataclass(frozen=True, slots=True)
class InputTranscriptionDelta:
    """Add to the transcript of a user item."""

    type: ClassVar[str] = "conversation.item.input_audio_transcription.delta"
    item_id: str
    content_index: int
    delta: str


@dataclass(frozen=True, slots=True)
class InputTranscriptionCompleted:
    """Give the final transcript of a user item."""

    type: ClassVar[str] = "conversation.item.input_audio_transcription.completed"
    item_id: str
    content_index: int
    transcript: str
    usage: dict[str, Any]


@dataclass(frozen=True, slots=True)
class InputTranscriptionFailed:
    """Say that there will be no transcript of a user item."""

    type: ClassVar[str] = "conversation.item.input_audio_transcription.failed"
    item_id: str
    content_index: int
    error: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ResponseCreated:
    """Open a response."""

    type: ClassVar[str] = "response.created"
    response: Response


@dataclass(frozen=True, slots=True)
class ResponseDone:
    """Close a response; exactly one follows every `ResponseCreated`."""

    type: ClassVar[str] = "response.done"
    response: Response


@dataclass(frozen=True, slots=True)
class OutputItemAdded:
    """Open an item of a response."""

    type: ClassVar[str] = "response.output_item.added"
    response_id: str
    output_index: int
    item: Item


@dataclass(frozen=True, slots=True)
class OutputItemDone:
    """Close an item of a response."""

    type: ClassVar[str] = "response.output_item.done"
    response_id: str
    output_index: int
    item: Item


@dataclass(frozen=True, slots=True)
class ContentPartAdded:
    """Open a content part."""

    type: ClassVar[str] = "response.content_part.added"
    response_id: str
    item_id: str
    output_index: int
    content_index: int
    part: Part


@dataclass(frozen=True, slots=True)
class ContentPartDone:
    """Close a content part with its whole text or transcript."""

    type: ClassVar[str] = "response.content_part.done"
    response_id: str
    item_id: str
    output_index: int
    content_index: int
    part: Part


@dataclass(frozen=True, slots=True)
class OutputTextDelta:
    """Add to the text of a text response."""

    type: ClassVar[str] = "response.output_text.delta"
    response_id: str
    item_id: str
    output_index: int
    content_index: int
    delta: str


@dataclass(frozen=True, slots=True)
class OutputTextDone:
    """Close the text of a text response."""

    type: ClassVar[str] = "response.output_text.done"
    response_id: str
    item_id: str
    output_index: int
    content_index: int
    text: str


@dataclass(frozen=True, slots=True)
class OutputAudioDelta:
    """Add audio: base64 of whole samples in the response's output format."""

    type: ClassVar[str] = "response.output_audio.delta"
    response_id: str
    item_id: str
    output_index: int
    content_index: int
    delta: str


@dataclass(frozen=True, slots=True)
class OutputAudioDone:
    """Close the audio."""

    type: ClassVar[str] = "response.output_audio.done"
    response_id: str
    item_id: str
    output_index: int
    content_index: int


@dataclass(frozen=True, slots=True)
class OutputAudioTranscriptDelta:
    """Add to the words of the audio; they run ahead of it."""

    type: ClassVar[str] = "response.output_audio_transcript.delta"
    response_id: str
    item_id: str
    output_index: int
    content_index: int
    delta: str


@dataclass(frozen=True, slots=True)
class OutputAudioTranscriptDone:
    """Close the words of the audio."""

    type: ClassVar[str] = "response.output_audio_transcript.done"
    response_id: str
    item_id: str
    output_index: int
    content_index: int
    transcript: str


@dataclass(frozen=True, slots=True)
class FunctionCallArgumentsDelta:
    """Add to the arguments of a function call."""

    type: ClassVar[str] = "response.function_call_arguments.delta"
    response_id: str
    item_id: str
    output_index: int
    call_id: str
    delta: str


@dataclass(frozen=True, slots=True)
class FunctionCallArgumentsDone:
    """Close the arguments of a function call: JSON, unless the response was cut short."""

    type: ClassVar[str] = "response.function_call_arguments.done"
    response_id: str
    item_id: str
    output_index: int
    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class RateLimitsUpdated:
    """Report rate limits; this server has none, so the list is empty."""

    type: ClassVar[str] = "rate_limits.updated"
    rate_limits: tuple[dict[str, Any], ...] = ()


ServerEvent: TypeAlias = (
    ErrorEvent
    | SessionCreated
    | SessionUpdated
    | SpeechStarted
    | SpeechStopped
    | InputAudioBufferCommitted
    | InputAudioBufferCleared
    | TimeoutTriggered
    | ItemAdded
    | ItemDone
    | ItemRetrieved
    | ItemTruncated
    | ItemDeleted
    | InputTranscriptionDelta
    | InputTranscriptionCompleted
    | InputTranscriptionFailed
    | ResponseCreated
    | ResponseDone
    | OutputItemAdded
    | OutputItemDone
    | ContentPartAdded
    | ContentPartDone
    | OutputTextDelta
    | OutputTextDone
    | OutputAudioDelta
    | OutputAudioDone
    | OutputAudioTranscriptDelta
    | OutputAudioTranscriptDone
    | FunctionCallArgumentsDelta
    | FunctionCallArgumentsDone
    | RateLimitsUpdated
)


@dataclass(frozen=True, slots=True)
class Hangup:
    """Close the connection after everything before it was sent."""

    code: int
    reason: str


Reaction: TypeAlias = ServerEvent | Command | Hangup
"""What the machine wants done: an event for the client, a command for the engine, or the end."""
