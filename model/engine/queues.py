"""Let every session's commands wait in a queue of their own, and have their turn."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from model.errors import OverloadedError
from model.messages import (
    Cancel,
    Close,
    Command,
    Reopen,
    weight,
)

# A worked example. A sends 40 items at once, then B one `Respond`; both wait between the same two
# ticks.
#
#     round 1   A: 16 commands   B: its Respond
#     tick                       B's reply begins
#     round 2   A: 16 commands
#     tick      ...
#     round 3   A: 8 commands
#
# Without turns B would wait until all of A's items were spelled. A `Close` of A meanwhile makes
# what A has waiting void, and goes first.
#
# What one session may have carried out before the others have their turn: a history is told in
# slices, and spelling 16,000 characters takes some 10 ms.
_TURN_COMMANDS = 16
_TURN_CHARS = 16 * 1024


@dataclass(frozen=True, slots=True)
class Turn:
    """What a session has carried out when it is its turn.

    Attributes:
        commands: at least one, in order.
        num_dropped: commands that waited before a `Close`, which made them void.
    """

    session_id: str
    commands: list[Command]
    num_dropped: int = 0


@dataclass(slots=True)
class _Queue:
    commands: deque[Command] = field(default_factory=deque)
    num_dropped: int = 0


class Queues:
    """Hold the commands that wait, in order within each session.

    A `Close` makes what its session has waiting void, and stands first. As sessions have their
    turns in the order in which they began to wait, whoever is given the place of a session that
    was closed is opened after it is closed.

    Args:
        max_commands: of one session; None for no bound. A `Close`, `Cancel` or `Reopen` is taken
            even beyond, since all make work less; sessions bound how many of these there are.
    """

    def __init__(self, max_commands: int | None) -> None:
        self._max_commands = max_commands
        self._queues: dict[str, _Queue] = {}

    def __bool__(self) -> bool:
        """Say whether any command waits."""
        return bool(self._queues)

    def put(self, command: Command) -> None:
        """Add a command.

        Raises:
            OverloadedError: too many of this session wait already.
        """
        queue = self._queues.setdefault(command.session_id, _Queue())
        if isinstance(command, Close):
            queue.num_dropped += len(queue.commands)
            queue.commands.clear()
            queue.commands.append(command)
            return
        is_full = self._max_commands is not None and len(queue.commands) >= self._max_commands
        if is_full and not isinstance(command, Cancel | Reopen):
            raise OverloadedError(
                f"{len(queue.commands)} commands of this session wait for the engine already"
            )
        queue.commands.append(command)

    def turns(self) -> list[Turn]:
        """Take each waiting session's next commands."""
        return [self._turn(session_id, queue) for session_id, queue in [*self._queues.items()]]

    def clear(self) -> None:
        """Forget all of them."""
        self._queues.clear()

    def _turn(self, session_id: str, queue: _Queue) -> Turn:
        taken: list[Command] = []
        total = 0
        # The sum is looked at before a command is added, so one that is heavier than a turn is
        # still taken, by itself.
        while queue.commands and len(taken) < _TURN_COMMANDS and total < _TURN_CHARS:
            taken.append(queue.commands.popleft())
            total += weight(taken[-1])
            if isinstance(taken[-1], Close):
                break  # what follows belongs to another session of the same name
        turn = Turn(session_id, taken, queue.num_dropped)
        queue.num_dropped = 0
        if not queue.commands:
            del self._queues[session_id]
        return turn
