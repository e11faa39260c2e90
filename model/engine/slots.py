"""Give sessions their slots: rows of the model's and the codec's state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Generic, Protocol, TypeVar

import torch

from model.dialogue.turn import TurnProgram


class Urgency(Enum):
    """Why a session has work."""

    ANSWER = auto()  # someone waits for a transcript, or for the first audio of a reply
    PLAYOUT = auto()  # audio in hand runs out later
    FRAME = auto()  # a frame of the user is to be heard before the next one arrives
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
    """

    index: int
    program: TurnProgram
    noise: torch.Generator
    playout: Playout = field(default_factory=Playout)
    work: Urgency | None = None
    waiting_since_s: float = 0.0
    is_behind: bool = False

    @property
    def session_id(self) -> str:
        """Name the session."""
        return self.program.session_id


class HasSession(Protocol):
    """A row of every state, and whose it is."""

    @property
    def index(self) -> int:
        """Return the row."""
        ...

    @property
    def session_id(self) -> str:
        """Name the session."""
        ...


S = TypeVar("S", bound=HasSession)


class SlotTable(Generic[S]):
    """Know which session has which slot.

    Args:
        num_slots: how many there are.
    """

    __slots__ = ("_by_session", "_free")

    def __init__(self, num_slots: int) -> None:
        self._free = list(range(num_slots))[::-1]
        self._by_session: dict[str, S] = {}

    def __len__(self) -> int:
        """Count the sessions that have a slot."""
        return len(self._by_session)

    def __iter__(self) -> Iterator[S]:
        """Go through the taken slots, in the order of their indices."""
        return iter(sorted(self._by_session.values(), key=lambda slot: slot.index))

    @property
    def is_full(self) -> bool:
        """Say whether no slot is free."""
        return not self._free

    def get(self, session_id: str) -> S | None:
        """Return the session's slot, None if it has none."""
        return self._by_session.get(session_id)

    def take(self, session_id: str, make: Callable[[int], S]) -> S:
        """Give a session the lowest free slot, made of its index; there must be one."""
        assert session_id not in self._by_session
        slot = make(self._free.pop())
        self._by_session[session_id] = slot
        return slot

    def release(self, slot: S) -> None:
        """Take a slot back."""
        del self._by_session[slot.session_id]
        self._free.append(slot.index)
        self._free.sort(reverse=True)
