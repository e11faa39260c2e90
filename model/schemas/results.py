"""Say what came of working on a function schema."""

from __future__ import annotations

from dataclasses import dataclass

# Far more than a function needs.
MAX_SCHEMA_CHARS = 65_536
MAX_REASON_CHARS = 200


@dataclass(frozen=True, slots=True)
class Verdict:
    """Say whether calls can be kept within a schema.

    Attributes:
        refused: why not; None if they can.
        left_out: what is checked after a call, because the grammar cannot hold it.
    """

    refused: str | None = None
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Draft:
    """A call's arguments, as far as they are written.

    Attributes:
        text: so far, compact JSON.
        spelled: what of it the last choice spelled, before the rest was written.
        choices: pieces among which the model is to choose next; none at the end.
        is_complete: whether it is a whole text that the grammar accepts.
        is_checked_late: whether the grammar does not hold all of the schema.
        misfit: why the schema does not accept the complete text; None if it does.
    """

    text: str
    spelled: str = ""
    choices: tuple[int, ...] = ()
    is_complete: bool = False
    is_checked_late: bool = False
    misfit: str | None = None


def too_large(schema: str) -> str:
    """Say that a schema has too many characters."""
    return f"it has {len(schema)} characters, at most {MAX_SCHEMA_CHARS} fit"
