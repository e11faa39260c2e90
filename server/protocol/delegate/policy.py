"""Say which responses a text model answers."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from server.config.delegate import DelegateAnswers

_NO_WORD = re.compile(r"[^\w']+")

Standing: TypeAlias = Literal["open", "unable", "able"]


@dataclass(frozen=True, slots=True)
class DelegatePolicy:
    """Say when and how the text model is asked; see `server.config.delegate.DelegateSettings`.

    Attributes:
        answers: which questions it answers, unless a client sets it.
        phrases: by which the served model says that it cannot answer, in plain words.
        instructions: that stand before a session's own.
        max_chars: of the conversation that it is shown, the newest.
        max_tokens: of an answer.
    """

    answers: DelegateAnswers = "unable"
    phrases: tuple[str, ...] = ()
    instructions: str = ""
    max_chars: int = 32_768
    max_tokens: int = 1_024

    def standing(self, said: str) -> Standing:
        """Say what the beginning of a reply tells: "unable" to answer, "able", or "open" so far.

        Args:
            said: the reply's words so far.
        """
        # "Sorry, I do" is open, "Sorry, I do not know that." is unable, "Sorry, I am late" is able.
        words = plain(said)
        if any(f"{words} ".startswith(f"{phrase} ") for phrase in self.phrases):
            return "unable"
        return "open" if any(phrase.startswith(words) for phrase in self.phrases) else "able"


def plain(text: str) -> str:
    """Return the words of a text in lower case, one space between two."""
    return _NO_WORD.sub(" ", text.lower()).strip()


def plain_phrases(phrases: Iterable[str]) -> tuple[str, ...]:
    """Return phrases in plain words; those without any mean nothing."""
    return tuple(words for phrase in phrases if (words := plain(phrase)))
