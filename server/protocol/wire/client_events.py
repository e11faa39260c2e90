"""Define what clients send: one frozen type per event, in the internal (GA) vocabulary.

`server.protocol.wire.parse` makes them of frames. `event_id` is the client's own, echoed in the
error that the event may cause.
"""

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from server.protocol.wire.checks import JsonObject


@dataclass(frozen=True, slots=True)
class SessionUpdate:
    """Change parts of the session's configuration; `session` is the raw patch."""

    type: ClassVar[str] = "session.update"
    event_id: str | None
    session: JsonObject


@dataclass(frozen=True, slots=True)
class InputAudioBufferAppend:
    """Append audio; `audio` is in the session's input format."""

    type: ClassVar[str] = "input_audio_buffer.append"
    event_id: str | None
    audio: bytes


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
class OutputAudioBufferClear:
    """Play no more of what was said; only where the transport plays it itself."""

    type: ClassVar[str] = "output_audio_buffer.clear"
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
    | OutputAudioBufferClear
    | ItemCreate
    | ItemRetrieve
    | ItemTruncate
    | ItemDelete
    | ResponseCreate
    | ResponseCancel
)
