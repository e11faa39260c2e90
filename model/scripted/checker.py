"""Check the arguments of calls against their functions' schemas, on no thread of the engine's."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol


class Checker(Protocol):
    """Check, as `model.schemas.service.SchemaService` does in a process of its own.

    Attributes:
        on_done: called when an answer is there, from any thread.
    """

    on_done: Callable[[], None]

    def misfit(self, owner: str, schema: str, text: str) -> Future[str | None]:
        """Ask why a schema does not accept a JSON text; see `SchemaService.misfit`."""
        ...

    def close(self) -> None:
        """End the process; a later question starts it again."""
        ...
