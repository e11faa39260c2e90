"""Define what a transport that plays replies itself is told, and what it reports.

Over a WebSocket a reply's audio goes out as events, faster than it is played, and clients play it.
Other transports play it in real time and know how far they are. For the protocol the two differ
only in who says what was heard.
"""

from dataclasses import dataclass
from typing import TypeAlias

from model.messages import Pcm

# A worked example over WebRTC. A reply of 2 s is made in 0.3 s:
#
#     machine   PlayAudio x 25, EndOfAudio
#     call      Played(1,600), Played(3,200), ...          one for each frame that was sent
#     user      speaks at 1.2 s
#     machine   StopAudio; the item is shortened to the last Played, to the sample
#
# Source: Realtime guide, "Realtime conversations", interruption: over WebRTC the server truncates,
# since it knows what was played; over a WebSocket the client has to.


@dataclass(frozen=True, slots=True, eq=False)
class PlayAudio:
    """Play more of an item, after everything that was given before.

    Attributes:
        pcm: float32 [samples] at the engine's rate, as fast as it is to be heard.
    """

    response_id: str
    item_id: str
    pcm: Pcm


@dataclass(frozen=True, slots=True)
class EndOfAudio:
    """Nothing more of an item comes."""

    item_id: str


@dataclass(frozen=True, slots=True)
class StopAudio:
    """Play no more of an item than has been played."""

    item_id: str


@dataclass(frozen=True, slots=True)
class PauseAudio:
    """Play nothing for now: the user may be about to interrupt."""


@dataclass(frozen=True, slots=True)
class ResumeAudio:
    """Play on from where it was paused."""


Sound: TypeAlias = PlayAudio | EndOfAudio | StopAudio | PauseAudio | ResumeAudio
"""What a transport that plays is told."""


@dataclass(frozen=True, slots=True)
class Played:
    """Report that an item has been played up to a place.

    Attributes:
        num_samples: of the item, from its start, at the engine's rate.
    """

    item_id: str
    num_samples: int
