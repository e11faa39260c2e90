"""Decide which sessions a tick serves. Pure arithmetic on deadlines: no tensors, no clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from model.engine.config import EngineConfig
from model.turns.phase import Phase
from model.turns.slot import Playout, Slot, Urgency

# A worked example, in milliseconds on the engine's clock; frames are 80, replies run at most 400
# ahead, and nobody's answer is awaited. At 1,000 there are
#
#     session   work        since   its audio ends   due from   deadline
#     A         PLAYOUT             1,250            850        1,250    it speaks, 250 in hand
#     B         FRAME       990                      990        1,070    its user speaks
#     C         PLAYOUT             1,900            1,500      1,900    it speaks, 900 in hand
#     D         BACKGROUND  700                      700        1,200    a typed item to be fed
#
# C is not due: it has enough. The earliest deadline is B's. Who shares its tick is a matter of the
# horizon: those whose deadline is within it of B's join, since a larger batch costs little more. So
# A and D wait for a later tick, unless the horizon reaches them.
#
# Source: Liu and Layland 1973, "Scheduling algorithms for multiprogramming in a hard-real-time
# environment", section 7 (earliest deadline first).

# Long enough that it never delays anyone, short enough to be done before the user speaks again.
_BACKGROUND_S = 0.5


def urgency(
    phase: Phase,
    playout: Playout,
    *,
    is_awaited: bool = False,
    is_flooded: bool = False,
    is_far_behind: bool = False,
) -> Urgency:
    """Say why a session with work has it.

    Args:
        phase: of its conversation.
        playout: the audio in hand.
        is_awaited: whether its user has said everything and waits, though not all is heard.
        is_flooded: whether more audio waits than a live user can have said meanwhile.
        is_far_behind: whether the model has to read so much before anything follows that it takes
            many ticks, long ones. An answer that comes so late anyway must not delay others'.
    """
    # Who sent more than a live user can have said is not live: it must not delay those who are.
    has_audio = phase is Phase.SPEAKING and playout.ends_s is not None
    if (is_flooded and phase is Phase.LISTENING) or (is_far_behind and not has_audio):
        return Urgency.CATCH_UP
    if is_awaited:
        return Urgency.ANSWER
    match phase:
        case Phase.TRANSCRIBING | Phase.REPLYING | Phase.CALLING:
            return Urgency.ANSWER
        case Phase.SPEAKING:
            return Urgency.ANSWER if playout.ends_s is None else Urgency.PLAYOUT
        case Phase.LISTENING:
            return Urgency.FRAME
        case Phase.IDLE:
            return Urgency.BACKGROUND


@dataclass(frozen=True, slots=True)
class Scheduler:
    """Serve the earliest deadline first.

    Attributes:
        config: for the size of a batch, how far replies run ahead, and who shares a tick.
        frame_s: length of one frame.
    """

    config: EngineConfig
    frame_s: float

    def deadline_s(self, slot: Slot) -> float:
        """Say when the work of `slot` should be done; among late ones only the order matters."""
        match slot.work:
            case Urgency.PLAYOUT:
                assert slot.playout.ends_s is not None
                return slot.playout.ends_s
            case Urgency.FRAME:
                return slot.waiting_since_s + self.frame_s
            case Urgency.BACKGROUND | Urgency.CATCH_UP:
                return slot.waiting_since_s + _BACKGROUND_S
            case Urgency.ANSWER | None:
                return slot.waiting_since_s

    def due_s(self, slot: Slot) -> float | None:
        """Say from when on `slot` is to be served; None if it has no work."""
        if slot.work is Urgency.PLAYOUT:
            assert slot.playout.ends_s is not None
            return slot.playout.ends_s - self.config.ahead_ms / 1000
        return None if slot.work is None else slot.waiting_since_s

    def choose(self, slots: Iterable[Slot], now_s: float) -> list[Slot]:
        """Choose whom to serve now, the most urgent first.

        Args:
            slots: all that are taken.
            now_s: on the engine's clock.

        Returns:
            At most `max_batch` slots; those whose work can wait are left out while others' cannot.
            Of those with much to catch up on, only the most urgent is among them: their steps
            cannot be batched, and the others wait for every one of them. Whoever is due shares a
            tick that is long for such a one's sake.
        """
        due = [
            (self.deadline_s(slot), slot.index, slot)
            for slot in slots
            if (due_s := self.due_s(slot)) is not None and due_s <= now_s
        ]
        # The index breaks ties, so that two runs of the same conversation are the same.
        due.sort(key=lambda entry: entry[:2])
        if not due:
            return []
        is_awaited = any(slot.work is Urgency.ANSWER for _, _, slot in due)
        config = self.config
        horizon_ms = config.answer_horizon_ms if is_awaited else config.horizon_ms
        # A deadline that has passed counts as now: being late does not make the tick smaller.
        limit_s = max(due[0][0], now_s) + horizon_ms / 1000
        hears = any(s.work is Urgency.FRAME for deadline_s, _, s in due if deadline_s <= limit_s)
        chosen: list[Slot] = []
        has_long = catches_up = False
        for deadline_s, _, slot in due:
            # Frames are cheap to hear together, and all of them are due within one.
            joins = deadline_s <= limit_s or catches_up or (hears and slot.work is Urgency.FRAME)
            if joins and not (slot.is_behind and has_long):
                chosen.append(slot)
                has_long |= slot.is_behind
                catches_up |= slot.is_behind and slot.work is Urgency.CATCH_UP
        return chosen[: config.max_batch]

    def next_due_s(self, slots: Iterable[Slot]) -> float | None:
        """Say when the next slot is to be served; None if no slot has work."""
        times = [due_s for slot in slots if (due_s := self.due_s(slot)) is not None]
        return min(times, default=None)
