"""Define what clients are sent: one frozen type per event, in the internal (GA) vocabulary.

A dialect (`server.protocol.dialects.ga`) writes them to the wire, and adds `type` and `event_id`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

from model.messages import Pcm
from server.protocol.items.items import Item, Part
from server.protocol.response import Response
from server.protocol.settings.config import SessionConfig

NOT_SENT: Mapping[str, bool] = {"is_sent": False}
"""Marks fields that are for the session and not for clients."""


@dataclass(frozen=True, slots=True)
class ErrorEvent:
    """Refuse one client event (`event_id` is the client's), or report our own fault."""

    # Realtime API reference, server events, error: most are recoverable, and the session stays
    # open. `event_id` inside is the client's, the one outside is ours.
    type: ClassVar[str] = "error"
    kind: str
    code: str | None
    message: str
    param: str | None
    client_event_id: str | None


@dataclass(frozen=True, slots=True)
class SessionCreated:
    """Open the session; always the first event."""

    # Realtime API reference, server events, session.created: clients may send before it, and do.
    type: ClassVar[str] = "session.created"
    session: SessionConfig


@dataclass(frozen=True, slots=True)
class SessionUpdated:
    """Acknowledge an update with the whole effective session."""

    # Realtime API reference, server events, session.updated.
    type: ClassVar[str] = "session.updated"
    session: SessionConfig


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Announce the user item that the speech will become."""

    # Realtime API reference, server events, input_audio_buffer.speech_started: counted in appended
    # audio, not in time; clients stop playing here.
    type: ClassVar[str] = "input_audio_buffer.speech_started"
    audio_start_ms: int
    item_id: str


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """Say where the announced item's audio ends."""

    # Realtime API reference, server events, input_audio_buffer.speech_stopped.
    type: ClassVar[str] = "input_audio_buffer.speech_stopped"
    audio_end_ms: int
    item_id: str


@dataclass(frozen=True, slots=True)
class InputAudioBufferCommitted:
    """Say that the buffered audio became an item."""

    # Realtime API reference, server events, input_audio_buffer.committed: before the item's own
    # events.
    type: ClassVar[str] = "input_audio_buffer.committed"
    previous_item_id: str | None
    item_id: str


@dataclass(frozen=True, slots=True)
class TimeoutTriggered:
    """Say that the user was silent for too long; the silence becomes an item."""

    # Realtime API reference, server events, input_audio_buffer.timeout_triggered: with server_vad's
    # `idle_timeout_ms` only. GA alone has it.
    type: ClassVar[str] = "input_audio_buffer.timeout_triggered"
    audio_start_ms: int
    audio_end_ms: int
    item_id: str


@dataclass(frozen=True, slots=True)
class InputAudioBufferCleared:
    """Acknowledge a clear."""

    # Realtime API reference, server events, input_audio_buffer.cleared.
    type: ClassVar[str] = "input_audio_buffer.cleared"


@dataclass(frozen=True, slots=True)
class ItemAdded:
    """Put an item into the conversation; assistant items are still in progress."""

    # Realtime API reference, server events, conversation.item.added; beta calls it
    # conversation.item.created and has nothing for `done`.
    type: ClassVar[str] = "conversation.item.added"
    previous_item_id: str | None
    item: Item


@dataclass(frozen=True, slots=True)
class ItemDone:
    """Say that an item is final."""

    # Realtime API reference, server events, conversation.item.done.
    type: ClassVar[str] = "conversation.item.done"
    previous_item_id: str | None
    item: Item


@dataclass(frozen=True, slots=True)
class ItemRetrieved:
    """Answer a retrieve."""

    # Realtime API reference, server events, conversation.item.retrieved.
    type: ClassVar[str] = "conversation.item.retrieved"
    item: Item


@dataclass(frozen=True, slots=True)
class ItemTruncated:
    """Acknowledge a truncation."""

    # Realtime API reference, server events, conversation.item.truncated.
    type: ClassVar[str] = "conversation.item.truncated"
    item_id: str
    content_index: int
    audio_end_ms: int


@dataclass(frozen=True, slots=True)
class ItemDeleted:
    """Acknowledge a deletion."""

    # Realtime API reference, server events, conversation.item.deleted.
    type: ClassVar[str] = "conversation.item.deleted"
    item_id: str


@dataclass(frozen=True, slots=True)
class InputTranscriptionDelta:
    """Add to the transcript of a user item."""

    # Realtime API reference, server events, conversation.item.input_audio_transcription.delta:
    # comes independently of the response, before it or after it.
    type: ClassVar[str] = "conversation.item.input_audio_transcription.delta"
    item_id: str
    content_index: int
    delta: str


@dataclass(frozen=True, slots=True)
class InputTranscriptionCompleted:
    """Give the final transcript of a user item."""

    # Realtime API reference, server events, …input_audio_transcription.completed: with its own
    # usage.
    type: ClassVar[str] = "conversation.item.input_audio_transcription.completed"
    item_id: str
    content_index: int
    transcript: str
    usage: dict[str, Any]


@dataclass(frozen=True, slots=True)
class InputTranscriptionScored(InputTranscriptionCompleted):
    """Give it with the log-probabilities of its tokens, to a session that includes them."""

    # Realtime API reference, session, include: the key is not there otherwise.
    logprobs: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class InputTranscriptionFailed:
    """Say that there will be no transcript of a user item."""

    # Realtime API reference, server events, …input_audio_transcription.failed: not an `error`.
    type: ClassVar[str] = "conversation.item.input_audio_transcription.failed"
    item_id: str
    content_index: int
    error: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ResponseCreated:
    """Open a response."""

    # Realtime API reference, server events, response.created: `status` is in_progress, `output`
    # empty.
    type: ClassVar[str] = "response.created"
    response: Response


@dataclass(frozen=True, slots=True)
class ResponseDone:
    """Close a response; exactly one follows every `ResponseCreated`."""

    # Realtime API reference, server events, response.done: always the last of a response, however
    # it ended; cancelled, failed and incomplete are statuses of it.
    type: ClassVar[str] = "response.done"
    response: Response


@dataclass(frozen=True, slots=True)
class OutputItemAdded:
    """Open an item of a response."""

    # Realtime API reference, server events, response.output_item.added.
    type: ClassVar[str] = "response.output_item.added"
    response_id: str
    output_index: int
    item: Item


@dataclass(frozen=True, slots=True)
class OutputItemDone:
    """Close an item of a response."""

    # Realtime API reference, server events, response.output_item.done: also when interrupted.
    type: ClassVar[str] = "response.output_item.done"
    response_id: str
    output_index: int
    item: Item


@dataclass(frozen=True, slots=True)
class ContentPartAdded:
    """Open a content part."""

    # Realtime API reference, server events, response.content_part.added: `part.type` is "audio" or
    # "text", where an item's content has "output_audio" or "output_text".
    type: ClassVar[str] = "response.content_part.added"
    response_id: str
    item_id: str
    output_index: int
    content_index: int
    part: Part


@dataclass(frozen=True, slots=True)
class ContentPartDone:
    """Close a content part with its whole text or transcript."""

    # Realtime API reference, server events, response.content_part.done.
    type: ClassVar[str] = "response.content_part.done"
    response_id: str
    item_id: str
    output_index: int
    content_index: int
    part: Part


@dataclass(frozen=True, slots=True)
class OutputTextDelta:
    """Add to the text of a text response."""

    # Realtime API reference, server events, response.output_text.delta; beta: response.text.delta.
    type: ClassVar[str] = "response.output_text.delta"
    response_id: str
    item_id: str
    output_index: int
    content_index: int
    delta: str


@dataclass(frozen=True, slots=True)
class OutputTextDone:
    """Close the text of a text response."""

    # Realtime API reference, server events, response.output_text.done.
    type: ClassVar[str] = "response.output_text.done"
    response_id: str
    item_id: str
    output_index: int
    content_index: int
    text: str


@dataclass(frozen=True, slots=True)
class OutputAudioDelta:
    """Add audio: base64 of whole samples in the response's output format.

    Attributes:
        pcm: what is heard of it: float32 [samples] at the engine's rate. For the session, which
            looks for its echo in what the client sends; it is not sent itself.
    """

    # Realtime API reference, server events, response.output_audio.delta; beta:
    # response.audio.delta. Not sent where the transport carries the sound.
    type: ClassVar[str] = "response.output_audio.delta"
    response_id: str
    item_id: str
    output_index: int
    content_index: int
    delta: str
    pcm: Pcm = field(repr=False, compare=False, metadata=NOT_SENT)


@dataclass(frozen=True, slots=True)
class OutputAudioDone:
    """Close the audio."""

    # Realtime API reference, server events, response.output_audio.done: without the audio.
    type: ClassVar[str] = "response.output_audio.done"
    response_id: str
    item_id: str
    output_index: int
    content_index: int


@dataclass(frozen=True, slots=True)
class OutputAudioTranscriptDelta:
    """Add to the words of the audio; they run ahead of it."""

    # Realtime API reference, server events, response.output_audio_transcript.delta.
    type: ClassVar[str] = "response.output_audio_transcript.delta"
    response_id: str
    item_id: str
    output_index: int
    content_index: int
    delta: str


@dataclass(frozen=True, slots=True)
class OutputAudioTranscriptDone:
    """Close the words of the audio."""

    # Realtime API reference, server events, response.output_audio_transcript.done.
    type: ClassVar[str] = "response.output_audio_transcript.done"
    response_id: str
    item_id: str
    output_index: int
    content_index: int
    transcript: str


@dataclass(frozen=True, slots=True)
class OutputAudioBufferStarted:
    """Say that a response begins to be played; only where the transport plays it itself."""

    # Realtime API reference, server events, output_audio_buffer.started: WebRTC and SIP only.
    type: ClassVar[str] = "output_audio_buffer.started"
    response_id: str


@dataclass(frozen=True, slots=True)
class OutputAudioBufferStopped:
    """Say that a response was played to its end."""

    # Realtime API reference, server events, output_audio_buffer.stopped: when all was played.
    type: ClassVar[str] = "output_audio_buffer.stopped"
    response_id: str


@dataclass(frozen=True, slots=True)
class OutputAudioBufferCleared:
    """Say that a response is not played any further."""

    # Realtime API reference, server events, output_audio_buffer.cleared: when it was cut off.
    type: ClassVar[str] = "output_audio_buffer.cleared"
    response_id: str


@dataclass(frozen=True, slots=True)
class FunctionCallArgumentsDelta:
    """Add to the arguments of a function call."""

    # Realtime API reference, server events, response.function_call_arguments.delta.
    type: ClassVar[str] = "response.function_call_arguments.delta"
    response_id: str
    item_id: str
    output_index: int
    call_id: str
    delta: str


@dataclass(frozen=True, slots=True)
class FunctionCallArgumentsDone:
    """Close the arguments of a function call: JSON, unless the response was cut short."""

    # Realtime API reference, server events, response.function_call_arguments.done: with `name`.
    type: ClassVar[str] = "response.function_call_arguments.done"
    response_id: str
    item_id: str
    output_index: int
    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class McpListToolsInProgress:
    """Say that the tools of a server are being listed."""

    type: ClassVar[str] = "mcp_list_tools.in_progress"
    item_id: str


@dataclass(frozen=True, slots=True)
class McpListToolsCompleted:
    """Say that they have been; the item holds them."""

    type: ClassVar[str] = "mcp_list_tools.completed"
    item_id: str


@dataclass(frozen=True, slots=True)
class McpListToolsFailed:
    """Say that they cannot be; why is our own addition to the API."""

    type: ClassVar[str] = "mcp_list_tools.failed"
    item_id: str
    error: dict[str, Any]


@dataclass(frozen=True, slots=True)
class McpCallArgumentsDelta:
    """Add to the arguments of a call of a server's tool."""

    type: ClassVar[str] = "response.mcp_call_arguments.delta"
    response_id: str
    item_id: str
    output_index: int
    delta: str
    obfuscation: str = ""  # one client drops the event without it


@dataclass(frozen=True, slots=True)
class McpCallArgumentsDone:
    """Close the arguments of a call of a server's tool."""

    type: ClassVar[str] = "response.mcp_call_arguments.done"
    response_id: str
    item_id: str
    output_index: int
    arguments: str


@dataclass(frozen=True, slots=True)
class McpCallInProgress:
    """Say that a server carries out a call; 0 is the index of one that no response holds."""

    type: ClassVar[str] = "response.mcp_call.in_progress"
    output_index: int
    item_id: str


@dataclass(frozen=True, slots=True)
class McpCallCompleted:
    """Say that a call has returned something; the item holds it."""

    type: ClassVar[str] = "response.mcp_call.completed"
    output_index: int
    item_id: str


@dataclass(frozen=True, slots=True)
class McpCallFailed:
    """Say that a call has failed; the item holds why."""

    type: ClassVar[str] = "response.mcp_call.failed"
    output_index: int
    item_id: str


@dataclass(frozen=True, slots=True)
class RateLimitsUpdated:
    """Report rate limits; this server has none, so the list is empty."""

    # Realtime API reference, server events, rate_limits.updated: after each response; ours are
    # empty.
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
    | InputTranscriptionScored
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
    | OutputAudioBufferStarted
    | OutputAudioBufferStopped
    | OutputAudioBufferCleared
    | FunctionCallArgumentsDelta
    | FunctionCallArgumentsDone
    | McpListToolsInProgress
    | McpListToolsCompleted
    | McpListToolsFailed
    | McpCallArgumentsDelta
    | McpCallArgumentsDone
    | McpCallInProgress
    | McpCallCompleted
    | McpCallFailed
    | RateLimitsUpdated
)
