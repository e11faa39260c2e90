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

    # Realtime API reference, client events, session.update: only what is there changes, and the
    # whole effective session comes back in session.updated. GA wants the session's `type`.
    type: ClassVar[str] = "session.update"
    event_id: str | None
    session: JsonObject


@dataclass(frozen=True, slots=True)
class InputAudioBufferAppend:
    """Append audio; `audio` is in the session's input format."""

    # Realtime API reference, client events, input_audio_buffer.append: no answer, at most 15 MiB.
    # Clients need not pace it: minutes of audio may come at once.
    type: ClassVar[str] = "input_audio_buffer.append"
    event_id: str | None
    audio: bytes


@dataclass(frozen=True, slots=True)
class InputAudioBufferCommit:
    """End the user's turn by hand."""

    # Realtime API reference, client events, input_audio_buffer.commit: makes a user item and asks
    # for no response; that is response.create's part.
    type: ClassVar[str] = "input_audio_buffer.commit"
    event_id: str | None


@dataclass(frozen=True, slots=True)
class InputAudioBufferClear:
    """Forget the audio that is not committed."""

    # Realtime API reference, client events, input_audio_buffer.clear.
    type: ClassVar[str] = "input_audio_buffer.clear"
    event_id: str | None


@dataclass(frozen=True, slots=True)
class OutputAudioBufferClear:
    """Play no more of what was said; only where the transport plays it itself."""

    # Realtime API reference, client events, output_audio_buffer.clear: WebRTC and SIP only. Clients
    # send response.cancel first, so that nothing more is made.
    type: ClassVar[str] = "output_audio_buffer.clear"
    event_id: str | None


@dataclass(frozen=True, slots=True)
class ItemCreate:
    """Add an item; `item` is raw, because checking it needs the conversation.

    Attributes:
        previous_item_id: None to append, "root" for the front, else the item to insert after.
    """

    # Realtime API reference, client events, conversation.item.create: history, typed turns, and
    # what functions returned. An unknown `previous_item_id` is refused.
    type: ClassVar[str] = "conversation.item.create"
    event_id: str | None
    item: JsonObject
    previous_item_id: str | None


@dataclass(frozen=True, slots=True)
class ItemRetrieve:
    """Ask for an item as the server has it."""

    # Realtime API reference, client events, conversation.item.retrieve: also the item's audio, as
    # the server has it after noise reduction and truncation.
    type: ClassVar[str] = "conversation.item.retrieve"
    event_id: str | None
    item_id: str


@dataclass(frozen=True, slots=True)
class ItemTruncate:
    """Say that an assistant item was only heard up to `audio_end_ms`."""

    # Realtime API reference, client events, conversation.item.truncate: a client that plays faster
    # than real time alone knows what was heard. `content_index` is 0.
    type: ClassVar[str] = "conversation.item.truncate"
    event_id: str | None
    item_id: str
    content_index: int
    audio_end_ms: int


@dataclass(frozen=True, slots=True)
class ItemDelete:
    """Remove an item from the conversation."""

    # Realtime API reference, client events, conversation.item.delete.
    type: ClassVar[str] = "conversation.item.delete"
    event_id: str | None
    item_id: str


@dataclass(frozen=True, slots=True)
class ResponseCreate:
    """Ask for a response; `response` holds the raw overrides."""

    # Realtime API reference, client events, response.create: what it says holds for this response
    # only; `conversation: "none"` keeps it out of the conversation.
    type: ClassVar[str] = "response.create"
    event_id: str | None
    response: JsonObject


@dataclass(frozen=True, slots=True)
class ResponseCancel:
    """Stop the response in progress."""

    # Realtime API reference, client events, response.cancel: the answer is response.done with the
    # status "cancelled"; there is no event response.cancelled.
    type: ClassVar[str] = "response.cancel"
    event_id: str | None
    response_id: str | None


# All but appended audio, which goes to the ears: what they found in it comes to the machine.
ControlEvent: TypeAlias = (
    SessionUpdate
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
ClientEvent: TypeAlias = InputAudioBufferAppend | ControlEvent
