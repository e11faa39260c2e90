"""What the engine knows of one session, apart from tensors, and why it has work."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

import torch

from model.engine.notes import Notes
from model.turns.program import TurnProgram


class Urgency(Enum):
    """Why a session has work."""

    ANSWER = auto()  # someone waits for a transcript, or for the first audio of a reply
    PLAYOUT = auto()  # audio in hand runs out later
    FRAME = auto()  # a frame of the user is to be heard before the next one arrives
    CATCH_UP = auto()  # much came at once, sound or text, and is taken as there is time
    BACKGROUND = auto()  # steps between turns, wanted by nobody until the next turn


@dataclass(slots=True)
class Playout:
    """Estimate what the client still has to play: it starts with the first audio it is sent.

    Attributes:
        ends_s: when the audio sent so far will have been played, on the engine's clock; None
            while nothing was sent.
    """

    ends_s: float | None = None

    def add(self, seconds: float, now_s: float) -> bool:
        """Count audio that is sent now, and tell whether it came too late for gapless playout."""
        is_late = self.ends_s is not None and self.ends_s < now_s
        # After a gap the client plays on from here.
        start_s = now_s if self.ends_s is None or is_late else self.ends_s
        self.ends_s = start_s + seconds
        return is_late


@dataclass(slots=True)
class Slot:
    """Everything the engine knows of one session, apart from tensors.

    Attributes:
        index: its row in every state.
        program: its conversation.
        noise: source of its random choices.
        playout: of the reply in progress.
        work: why it has work; None if it has none.
        waiting_since_s: since when, on the engine's clock.
        is_behind: whether the model has much to catch up on, in blocks of steps that are run alone.
        notes: counts its commands, where what it is served is noted; None where it is not.
    """

    index: int
    program: TurnProgram
    noise: torch.Generator
    playout: Playout = field(default_factory=Playout)
    work: Urgency | None = None
    waiting_since_s: float = 0.0
    is_behind: bool = False
    notes: Notes | None = None

    @property
    def session_id(self) -> str:
        """Name the session."""
        return self.program.session_id
