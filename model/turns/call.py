"""Make one function call: which function, and with what arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from model.messages import Tool
from model.turns.arguments import Arguments
from model.turns.spelling import Speller


@dataclass(frozen=True, slots=True)
class Written:
    """What was added to a call.

    Attributes:
        name: of the function, if it has just become clear.
        text: of the arguments.
        pieces: what the model is to read of all this.
    """

    name: str | None
    text: str
    pieces: list[int]


class Call:
    """Hold a call while it is made.

    The function's name is spelled in pieces, and the model chooses wherever names part; then come
    the arguments. The model reads along: the pieces it chose, and the words of what was written
    without it.

    Args:
        tools: the functions to choose from, at least one.
        speller: of the model's vocabulary.

    Raises:
        GrammarError: from `go_on` and `close`, as `Arguments`.
    """

    def __init__(self, tools: Sequence[Tool], speller: Speller) -> None:
        self._speller = speller
        self._encode = speller.vocabulary.encode
        # A name that another one begins with is told from it by its end.
        self._names = [(tool, [*self._encode(tool.name), speller.end]) for tool in tools]
        self._num_spelled = 0
        self._arguments: Arguments | None = None
        self._text: list[str] = []

    @property
    def choices(self) -> list[int]:
        """Return the pieces among which the model is to choose; none when there is nothing left."""
        if self._arguments is not None:
            return list(self._arguments.choices)
        return sorted({piece for _, name in self._names for piece in name[self._num_spelled :][:1]})

    @property
    def is_complete(self) -> bool:
        """Tell whether the call can be made as it is."""
        return self._arguments is not None and self._arguments.is_complete

    @property
    def memory(self) -> str:
        """Return the call in words, as the model is to remember it."""
        tool, _ = self._names[0]
        return remembered(tool.name, "".join(self._text))

    def go_on(self, piece: int | None = None) -> Written:
        """Take what the model chose, if it had a choice, and write up to the next choice."""
        arguments = self._arguments
        if arguments is not None:
            assert piece is not None
            chosen = arguments.choose(piece)
            return self._wrote(arguments.go_on(), pieces=[piece], chosen=chosen)
        pieces = [] if piece is None else [piece]
        if piece is not None:
            self._spell(piece)
        while len(self.choices) == 1:
            pieces += self.choices
            self._spell(self.choices[0])
        if self.choices:
            return Written(None, "", pieces)
        name, arguments = self._begin_arguments()
        return self._wrote(arguments.go_on(), name=name, pieces=pieces)

    def close(self) -> Written:
        """Write what is missing without the model, if that does not take too much."""
        name, arguments = None, self._arguments
        if arguments is None:
            name, arguments = self._begin_arguments()
        return self._wrote(arguments.close(), name=name)

    def _begin_arguments(self) -> tuple[str, Arguments]:
        """Settle on the first of the functions that are left."""
        self._names = self._names[:1]
        tool, _ = self._names[0]
        self._arguments = Arguments(tool.parameters, self._speller)
        return tool.name, self._arguments

    def _spell(self, piece: int) -> None:
        """Keep the names that go on with `piece`."""
        at = self._num_spelled
        self._names = [entry for entry in self._names if entry[1][at] == piece]
        self._num_spelled += 1

    def _wrote(
        self, text: str, *, name: str | None = None, pieces: Sequence[int] = (), chosen: str = ""
    ) -> Written:
        """Note arguments: what `pieces` spell is `chosen`, and `text` was written without them."""
        self._text += (chosen, text)
        return Written(name, chosen + text, [*pieces, *self._encode(text)])


def remembered(name: str, arguments: str) -> str:
    """Return the words by which a model without JSON remembers a call."""
    return f"{name} {arguments}"
