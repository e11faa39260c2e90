"""Define moments of a session that are in no event, and that its timing needs.

The machine notes them beside its reactions, with the time that it was given. It measures nothing
itself and does not keep them. `SessionMachine.take_moments` hands them out.
"""

from dataclasses import dataclass
from typing import TypeAlias

# A worked example of a spoken turn with an early reply, in seconds:
#
#     10.00   the user's last sound                 nothing is known yet
#     10.10   the reply is begun, and kept back     nothing: it may be taken back
#     10.50   TurnEnded(10.50, silence_s=0.50)      so the user had finished at 10.00
#     10.50   ReplyBegun(10.50)                     the engine had begun before: this costs nothing


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """The user's turn was found to be over.

    Attributes:
        at_s: when, on the clock of the machine's `now_s`.
        silence_s: how long the user had been silent by then.
    """

    at_s: float
    silence_s: float


@dataclass(frozen=True, slots=True)
class ReplyBegun:
    """The engine has read what a response is based on, and goes on to its first step.

    Attributes:
        response_id: of the response; the client may be told of it only afterwards.
        at_s: as in `TurnEnded`.
    """

    response_id: str
    at_s: float


Moment: TypeAlias = TurnEnded | ReplyBegun
