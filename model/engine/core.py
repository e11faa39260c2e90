"""What the engine's host asks of a core, and how a core travels to another process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from model.messages import Command, EngineInfo, Output
from model.metrics import EngineMetrics


class EngineCore(Protocol):
    """Do an engine's work on whatever thread calls it, always the same one."""

    metrics: EngineMetrics

    @property
    def info(self) -> EngineInfo:
        """Describe the engine."""
        ...

    @property
    def max_queued_commands(self) -> int:
        """Bound the commands that wait for the thread."""
        ...

    def warm_up(self) -> None:
        """Get ready; called first on the thread, before sessions are opened."""
        ...

    def apply(self, command: Command) -> Sequence[Output]:
        """Carry out a command, and return what follows from it at once."""
        ...

    def tick(self) -> Sequence[Output]:
        """Do what is due."""
        ...

    def next_due_s(self) -> float | None:
        """Say when a tick will have something to do, on `time.monotonic`; None if never."""
        ...

    def fail_all(self, message: str) -> Sequence[Output]:
        """Give up all sessions and start over."""
        ...

    def on_wake(self, wake: Callable[[], None]) -> None:
        """Have `wake` called when `next_due_s` may say something else, from any thread."""
        ...

    def close(self) -> None:
        """End what works for the core elsewhere; it may be used again afterwards."""
        ...


class CoreSpec(Protocol):
    """Build an engine's core wherever it is wanted; an implementation can be pickled."""

    def build(self) -> EngineCore:
        """Return the core, with `time.monotonic` as its clock.

        Raises:
            ParleyError: it cannot be had; the message says why.
        """
        ...
