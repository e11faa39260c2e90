"""Say which moves a turn-based conversation can make. The table is the whole of it."""

from __future__ import annotations

from enum import Enum, auto


class Phase(Enum):
    """What a conversation is doing."""

    IDLE = auto()  # nobody's turn; the model waits
    LISTENING = auto()  # the user's audio is fed as it arrives
    TRANSCRIBING = auto()  # the user's turn is over; its final words are being written
    REPLYING = auto()  # the reply's words are being written, ahead of its audio
    SPEAKING = auto()  # the reply's audio is being made
    CALLING = auto()  # a function call is being written


class Cue(Enum):
    """What moves it on."""

    HEAR = auto()  # audio of a user turn
    SHELVE = auto()  # something must enter the conversation before the turn in progress
    CLEAR = auto()  # the user's turn is forgotten
    COMMIT = auto()  # the user's turn is over
    TRANSCRIBED = auto()  # the final transcript is complete
    RESPOND = auto()  # a reply is asked for
    SPEAK = auto()  # the reply's words are complete
    CALL = auto()  # the reply is a function call
    END = auto()  # the reply is complete or cancelled
    REOPEN = auto()  # the user's turn was not over after all


TRANSITIONS: dict[tuple[Phase, Cue], Phase] = {
    (Phase.IDLE, Cue.HEAR): Phase.LISTENING,
    (Phase.LISTENING, Cue.SHELVE): Phase.IDLE,
    (Phase.LISTENING, Cue.CLEAR): Phase.IDLE,
    (Phase.LISTENING, Cue.COMMIT): Phase.TRANSCRIBING,
    (Phase.TRANSCRIBING, Cue.TRANSCRIBED): Phase.IDLE,
    (Phase.IDLE, Cue.RESPOND): Phase.REPLYING,
    (Phase.REPLYING, Cue.SPEAK): Phase.SPEAKING,
    (Phase.REPLYING, Cue.END): Phase.IDLE,
    (Phase.SPEAKING, Cue.END): Phase.IDLE,
    (Phase.REPLYING, Cue.CALL): Phase.CALLING,
    (Phase.CALLING, Cue.END): Phase.IDLE,
    (Phase.CALLING, Cue.SPEAK): Phase.SPEAKING,
    (Phase.TRANSCRIBING, Cue.REOPEN): Phase.LISTENING,
    (Phase.IDLE, Cue.REOPEN): Phase.LISTENING,
    (Phase.REPLYING, Cue.REOPEN): Phase.LISTENING,
    (Phase.SPEAKING, Cue.REOPEN): Phase.LISTENING,
    (Phase.CALLING, Cue.REOPEN): Phase.LISTENING,
}
