"""Hold what a text model has to do with one response."""

from dataclasses import dataclass, field

from model.messages import ResponseEnd
from server.protocol.delegate.outcomes import AnswerCall, AnswerDone
from server.protocol.filters.verdicts import ResponseOutput

# A response goes one of these ways:
#
#     served model answers     watched until its words show that it can; then nothing is held here
#     it says that it cannot   watched, asked; what it has made is held, or said if the answer can
#                              only be shown; begun with the first words of the text model
#     the text model always    waiting for the user's words, asked, begun
#
# Once begun, the answer is recited by the served model, or written by us.


@dataclass(slots=True)
class Delegated:
    """Say how far it is.

    Attributes:
        is_watched: whether the served model makes it, and may say that it cannot.
        said: what the served model has said of it.
        held: outputs of the engine that nobody has been told of.
        own_end: how the engine ended its own words, which were said although they are no answer.
        is_waiting: whether the user's words are not all known yet.
        ask_id: of the question, while it is being answered.
        has_begun: whether the text model's answer goes out.
        is_recited: whether the engine says it.
        text: words of the answer that have not gone out.
        recited: all that the engine was given.
        calls: of the answer; they come last.
        done: the end of the answer.
        is_told: whether the engine remembers what it has not made itself.
    """

    is_watched: bool = False
    said: str = ""
    held: list[ResponseOutput] = field(default_factory=list)
    own_end: ResponseEnd | None = None
    is_waiting: bool = False
    ask_id: str | None = None
    has_begun: bool = False
    is_recited: bool = False
    text: str = ""
    recited: str = ""
    calls: list[AnswerCall] = field(default_factory=list)
    done: AnswerDone | None = None
    is_told: bool = False

    @property
    def is_at_engine(self) -> bool:
        """Say whether the engine has something to do with it."""
        return self.is_watched or self.is_recited
