"""Define what goes into the machine beside a client's events, and what comes out of it.

`Heard` events come from the session's own ears: input audio at the engine's rate, and where speech
begins and ends in it.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from model.messages import Command, Pcm
from server.errors import ClientError
from server.images.picture import Picture
from server.protocol.delegate.outcomes import DelegateCommand
from server.protocol.filters.verdicts import CheckWords
from server.protocol.mcp.outcomes import ToolCommand
from server.protocol.server_events import ServerEvent
from server.protocol.sound import Sound

# What the session's own ears report, in the order of the audio. For a turn with one pause they are
#
#     InputAudio, SpeechBegan, InputAudio, SpeechPaused, SpeechResumed,
#     InputAudio, SpeechPaused, SpeechEnded
#
# and with semantic_vad an EndInDoubt stands at each window of silence, until the model has said
# whether the turn sounds finished.


@dataclass(frozen=True, slots=True, eq=False)
class InputAudio:
    """More input audio.

    Attributes:
        pcm: float32 [samples] at the engine's rate.
        has_speech: whether there may be speech in it.
        part_samples: how many samples each part of an item has, if it came in one.
    """

    pcm: Pcm
    has_speech: bool = True
    part_samples: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SpeechBegan:
    """Speech began; the turn's audio starts at `audio_start_ms` of all appended audio."""

    audio_start_ms: int


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    """The turn ended; its audio, trailing silence included, ends at `audio_end_ms`.

    Attributes:
        silence_ms: how much silence that is.
    """

    audio_end_ms: int
    silence_ms: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class SpeechPaused:
    """The turn may have ended, or the user goes on: `SpeechEnded` or `SpeechResumed` follows."""


@dataclass(frozen=True, slots=True)
class SpeechResumed:
    """The user goes on after `SpeechPaused`."""


@dataclass(frozen=True, slots=True)
class SpeechSuspected:
    """Something began like speech that would end a reply: that begins, or is dismissed."""


@dataclass(frozen=True, slots=True)
class SpeechDismissed:
    """What began like speech was none."""


@dataclass(frozen=True, slots=True)
class EndInDoubt:
    """The user is silent, and whether that ends the turn is for the model to say."""


Heard: TypeAlias = (
    InputAudio
    | SpeechSuspected
    | SpeechDismissed
    | SpeechBegan
    | SpeechPaused
    | SpeechResumed
    | EndInDoubt
    | SpeechEnded
)


@dataclass(frozen=True, slots=True)
class Glimpse:
    """The user's camera shows something; it is part of the turn that ends next."""

    picture: Picture


@dataclass(frozen=True, slots=True)
class NoSlot:
    """The engine has no slot free for a response that needs one of its own.

    Attributes:
        session_id: under which the engine was to open it.
    """

    session_id: str


@dataclass(frozen=True, slots=True, eq=False)
class Refusal:
    """Refuse the client's event, after what was heard before it; the last of the reactions."""

    error: ClientError


# Source: RFC 6455, section 7.4 (close codes); server/transport/close_codes.py has one for each
# reason.
class EndReason(StrEnum):
    """Say why a connection to a session ends. How that looks is its transport's business."""

    HUNG_UP = "hung_up"  # the client asked for it, outside of the connection
    SESSION_ENDED = "session_ended"  # of a connection beside the session's own
    EXPIRED = "expired"  # it was idle, or there, for as long as it may be
    KEY_REVOKED = "key_revoked"
    NO_ROOM = "no_room"  # now, perhaps later
    SLOW_READER = "slow_reader"
    ENGINE_FAILED = "engine_failed"
    INTERNAL_ERROR = "internal_error"


@dataclass(frozen=True, slots=True)
class Hangup:
    """Close the connection after everything before it was sent.

    Attributes:
        reason: why.
        text: the same for people, in as many bytes as a close frame takes (123).
    """

    reason: EndReason
    text: str


Reaction: TypeAlias = (
    ServerEvent | Command | ToolCommand | DelegateCommand | CheckWords | Sound | Refusal | Hangup
)
"""What the machine wants done: an event for the client, a command for the engine, something for
whoever speaks to MCP servers or to a text model or checks words, something for a transport that
plays, an error in
answer to a client, or the end."""
