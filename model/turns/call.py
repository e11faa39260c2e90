"""Make one function call: which function, and with what arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from model.errors import GrammarError
from model.messages import Tool
from model.prompts import with_gaps
from model.schemas.results import Draft
from model.schemas.spelling import Speller

# How often the model may choose anew where its arguments are not what the whole schema says.
MAX_RETRIES = 3


class Writer(Protocol):
    """Write arguments within their schema, on no thread of the engine's."""

    def write(
        self,
        owner: str,
        call: str,
        schema: str,
        chosen: Sequence[int],
        *,
        closes: bool = False,
        without: Sequence[int] = (),
    ) -> Future[Draft]:
        """Write up to the next choice; see `model.schemas.service.SchemaService.write`."""
        ...


class CallService(Writer, Protocol):
    """A writer whose work is done elsewhere, such as in another process.

    Attributes:
        on_done: called when an answer is there, from any thread.
    """

    on_done: Callable[[], None]

    def close(self) -> None:
        """End what is behind it; what is asked for later starts it again."""
        ...


@dataclass(frozen=True, slots=True)
class Written:
    """What was added to a call.

    Attributes:
        name: of the function, if it has just become clear.
        text: of the arguments, as far as it can be told already.
        pieces: what the model is to read of all this.
        kept: pieces of the call that stand, where the others were taken back before; else None.
    """

    name: str | None
    text: str
    pieces: list[int]
    kept: int | None = None


# A worked example. There are the functions get_weather and get_time, and the schema of the first
# has one property, "city". What is written, and who decides it:
#
#     get        nobody: both names begin so
#     weather    the model, between "weather" and "time"; what is left of the name is certain
#     {"city":"  nobody: the schema allows nothing else
#     paris      the model, among the pieces that may stand in a string
#     "}         the model ends the string with <speak>; the rest is certain again
#
# So a call costs the model as many steps as there are real choices.
class Call:
    """Hold a call while it is made.

    The function's name is spelled in pieces, and the model chooses wherever names part; then come
    the arguments. The model reads along: the pieces it chose, and the words of what was written
    without it.

    Where the grammar does not hold all of a schema, the text is kept back until it is complete and
    was checked. If it does not fit, the model's last choice is taken back and it chooses among the
    others, a few times.

    Args:
        tools: the functions to choose from, at least one.
        speller: of the model's vocabulary.
        writer: writes the arguments.
        name: names the call among all; up to a slash, whose turn it takes with the writer.

    Raises:
        GrammarError: from `go_on`, `close` and `resume`: the schema cannot be followed, or the
            model made nothing that fits.
        OverloadedError: from the same: the writer has too much to do.
    """

    def __init__(self, tools: Sequence[Tool], speller: Speller, writer: Writer, name: str) -> None:
        self._speller, self._writer, self._call = speller, writer, name
        # A name that another one begins with is told from it by its end.
        self._names = [(tool, [*self._read(tool.name), speller.end]) for tool in tools]
        self._num_spelled = 0
        self._coming: Future[Draft] | None = None
        self._draft: Draft | None = None  # None while the name is spelled
        self._chosen: list[int] = []
        self._marks: list[int] = []  # pieces before each of these choices
        self._tried: list[list[int]] = [[]]  # choices taken back, at each place up to this one
        self._num_retries = 0
        self._num_pieces = 0
        self._num_sent = 0  # letters
        self._name: str | None = None  # to be told with what is written next
        self._pieces: list[int] = []  # the same
        self._kept: int | None = None  # the same
        self._is_closing = False

    @property
    def choices(self) -> list[int]:
        """Return the pieces among which the model is to choose; none when there is nothing left."""
        if self._draft is not None:
            return list(self._draft.choices)
        return sorted({piece for _, name in self._names for piece in name[self._num_spelled :][:1]})

    @property
    def is_complete(self) -> bool:
        """Tell whether the call can be made as it is."""
        return self._draft is not None and self._draft.is_complete and not self._draft.misfit

    @property
    def is_waiting(self) -> bool:
        """Tell whether it cannot go on before something is there that is written elsewhere."""
        return self._coming is not None

    @property
    def has_answer(self) -> bool:
        """Tell whether what was waited for is there, for `resume`."""
        return self._coming is not None and self._coming.done()

    @property
    def memory(self) -> str:
        """Return the call in words, as the model is to remember it."""
        tool, _ = self._names[0]
        return remembered(tool.name, self._draft.text if self._draft else "")

    def go_on(self, piece: int | None = None) -> Written | None:
        """Take what the model chose, if it had a choice, and write up to the next choice.

        Returns:
            What was written; None if that takes a while.
        """
        if self._draft is not None:
            assert piece is not None
            self._chosen.append(piece)
            self._marks.append(self._num_pieces)
            self._tried.append([])
            self._pieces.append(piece)
            return self._ask()
        if piece is not None:
            self._spell(piece)
        while len(self.choices) == 1:
            self._spell(self.choices[0])
        if self.choices:
            return self._wrote("")
        return self._begin_arguments()

    def close(self) -> Written | None:
        """Write what is missing without the model, if that does not take too much; as `go_on`."""
        self._is_closing = True
        return self._begin_arguments() if self._draft is None else self._ask()

    def resume(self) -> Written | None:
        """Go on with what was waited for; as `go_on`."""
        assert self._coming is not None
        draft, self._coming = self._coming.result(), None
        num_written = 0 if self._draft is None else len(self._draft.text)
        self._draft = draft
        is_dead_end = not draft.is_complete and not draft.choices and bool(self._tried[-1])
        if draft.misfit is not None or is_dead_end:
            return self._take_back(draft.misfit or "nothing else can be chosen")
        if self._kept is None:  # else the model has read it before
            self._pieces += self._read(draft.text[num_written + len(draft.spelled) :])
        if draft.is_checked_late and not draft.is_complete:
            return self._wrote("")
        sent, self._num_sent = self._num_sent, len(draft.text)
        return self._wrote(draft.text[sent:])

    def _read(self, text: str) -> list[int]:
        """Return the pieces of what was written, names apart into their words."""
        return self._speller.vocabulary.encode(with_gaps(text))

    def _begin_arguments(self) -> Written | None:
        """Settle on the first of the functions that are left."""
        self._names = self._names[:1]
        self._name = self._names[0][0].name
        return self._ask()

    def _ask(self) -> Written | None:
        """Have the writer go on from the model's choices."""
        self._coming = self._writer.write(
            self._call.partition("/")[0],
            self._call,
            self._names[0][0].parameters,
            self._chosen,
            closes=self._is_closing,
            without=self._tried[-1],
        )
        return self.resume() if self._coming.done() else None

    def _take_back(self, reason: str) -> Written | None:
        """Let the model choose anew where it chose last."""
        if self._is_closing or not self._chosen or self._num_retries == MAX_RETRIES:
            raise GrammarError(f"what the model wrote does not fit the whole schema: {reason}")
        self._num_retries += 1
        # Two choices were made, "paris" and "moon", and the whole schema refuses "moon". It joins
        # what was tried at the second place, and the list of the third place goes. The writer is
        # asked again with the choices "paris", and is told to leave out "moon".
        self._tried.pop()
        self._tried[-1].append(self._chosen.pop())
        self._kept = self._num_pieces = self._marks.pop()
        self._pieces = []
        return self._ask()

    def _spell(self, piece: int) -> None:
        """Keep the names that go on with `piece`."""
        at = self._num_spelled
        self._names = [entry for entry in self._names if entry[1][at] == piece]
        self._num_spelled += 1
        self._pieces.append(piece)

    def _wrote(self, text: str) -> Written:
        written = Written(self._name, text, self._pieces, self._kept)
        self._num_pieces += len(self._pieces)
        self._name, self._pieces, self._kept = None, [], None
        return written


def remembered(name: str, arguments: str) -> str:
    """Return the words by which a model without JSON remembers a call."""
    return f"{name} {arguments}"
