"""Define what is asked of whoever checks words, and what comes back."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from model.messages import InputTranscript, Output, ResponseEnd, ResponsePart

Direction: TypeAlias = Literal["heard", "spoken", "written", "called"]
"""Words of the user; of a reply with sound; of a reply in text; of a function call.

What is spoken cannot be masked, and in a call a mask may not be what the function takes.
"""


@dataclass(frozen=True, slots=True)
class FilterPlan:
    """Say what is checked at all.

    Attributes:
        hears: whether words of the user are, spoken and typed.
        says: whether replies are.
        calls: whether arguments of calls are.
        sentence: what is said in the place of what was refused; empty for nothing.
    """

    hears: bool = False
    says: bool = False
    calls: bool = False
    sentence: str = ""

    @property
    def checks(self) -> bool:
        """Say whether anything is."""
        return self.hears or self.says or self.calls


NO_FILTERS = FilterPlan()


@dataclass(frozen=True, slots=True)
class CheckWords:
    """Ask whether words may pass; one `Verdict` answers.

    Attributes:
        key: of the question.
        direction: whose words they are.
        text: the words, after those of the same sentence that have been asked about already.
        start: index of the first character of `text` that is new.
    """

    key: int
    direction: Direction
    text: str
    start: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Answer a `CheckWords`.

    Attributes:
        key: of the question.
        words: what may pass in the place of the new words, of the same length; None: they are
            refused.
    """

    key: int
    words: str | None


@dataclass(frozen=True, slots=True)
class Blocked:
    """End the response `turn`: a check has refused it. It takes the place of all that followed."""

    session_id: str
    turn: int


@dataclass(frozen=True, slots=True)
class Retell:
    """Tell the engine the conversation anew: in `turn` it made what nobody was told.

    It cannot go back in that by itself: words that were written and not spoken, and calls.
    """

    session_id: str
    turn: int


ResponseOutput: TypeAlias = ResponsePart | ResponseEnd | Blocked | Retell
"""What becomes of a response: what the engine makes, and what the checks put in its place."""

Passed: TypeAlias = Output | Blocked | Retell
"""What is told of the engine's outputs once the words in them were checked."""


@dataclass(frozen=True, slots=True)
class RedactedTranscript(InputTranscript):
    """Report the words of a user's turn without what was refused; the model has heard it all.

    Attributes:
        is_unanswered: whether all are refused, and no response to the turn has been asked for yet
            that could be refused with it.
    """

    is_unanswered: bool = False
