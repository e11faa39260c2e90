"""Do the work that function schemas make: compile, write a call's arguments, check them.

What is done here may take minutes or gigabytes, or end the process, whatever the schema's size.
`worker.py` puts bounds on it.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from model.errors import GrammarError
from model.schemas.arguments import Arguments
from model.schemas.grammar import check_schema, object_schema
from model.schemas.results import MAX_REASON_CHARS, Draft, Verdict
from model.schemas.spelling import Speller
from model.vocabulary import TurnVocabulary

# Calls in progress whose grammars are kept where they are; others are written again up to there.
_MAX_OPEN_CALLS = 64
_NUM_REMEMBERED = 256


@dataclass(slots=True)
class _OpenCall:
    """One call in progress."""

    arguments: Arguments
    chosen: list[int] = field(default_factory=list)
    text: str = ""
    spelled: str = ""


class Desk:
    """Work on schemas.

    Args:
        vocabulary: of the model that chooses; None where nothing is written.
    """

    def __init__(self, vocabulary: TurnVocabulary | None = None) -> None:
        self._vocabulary = vocabulary
        self._speller: Speller | None = None
        self._calls: OrderedDict[str, _OpenCall] = OrderedDict()

    def forget(self) -> None:
        """Let go of all that is kept; it is made again where it is needed."""
        self._calls.clear()
        _validator.cache_clear()

    def check(self, schema: str) -> Verdict:
        """Say whether calls can be kept within a schema, given as JSON text."""
        try:
            parameters = object_schema(schema)
            left_out = check_schema(parameters)
            if left_out:
                _validator(schema)
        except GrammarError as error:
            return Verdict(str(error))
        return Verdict(None, left_out)

    def misfit(self, schema: str, text: str) -> str | None:
        """Say why a schema does not accept a JSON text, None if it does."""
        from jsonschema.exceptions import best_match  # noqa: PLC0415 - rarely needed, and slow

        error = best_match(_validator(schema).iter_errors(json.loads(text)))
        if error is None:
            return None
        where = "".join(f"[{part!r}]" for part in error.absolute_path)
        return _shortened(f"{where}: {error.message}" if where else error.message)

    def write(
        self,
        call: str,
        schema: str,
        chosen: Sequence[int],
        *,
        closes: bool = False,
        without: Sequence[int] = (),
    ) -> Draft:
        """Write a call's arguments up to where the model has to choose next.

        Nothing needs to be remembered of earlier requests: the choices say it all.

        Args:
            call: names the call.
            schema: of its arguments, as JSON text.
            chosen: what the model has chosen so far, one piece after another.
            closes: write the rest without the model.
            without: choices that were tried at this place already.

        Raises:
            GrammarError: the schema cannot be followed.
        """
        at = self._open(call, schema, chosen)
        arguments = at.arguments
        if closes:
            at.text += arguments.close()
        if arguments.is_complete:
            del self._calls[call]
        choices = tuple(piece for piece in arguments.choices if piece not in without)
        is_complete, is_late = arguments.is_complete, bool(arguments.left_out)
        misfit = self.misfit(schema, at.text) if is_complete and is_late else None
        return Draft(at.text, at.spelled, choices, is_complete, is_late, misfit)

    def _open(self, name: str, schema: str, chosen: Sequence[int]) -> _OpenCall:
        """Return a call, written up to after these choices."""
        call = self._calls.pop(name, None)
        # The request carries all choices. If the first ones are those that this grammar has
        # followed, only the new ones are left to do; otherwise a choice was taken back, and it is
        # written from the start.
        if call is None or call.chosen != list(chosen[: len(call.chosen)]):
            if self._speller is None:
                assert self._vocabulary is not None
                self._speller = Speller(self._vocabulary)
            call = _OpenCall(Arguments(schema, self._speller))
            call.text = call.arguments.go_on()
        for piece in chosen[len(call.chosen) :]:
            if piece not in call.arguments.choices:
                raise GrammarError(f"piece {piece} is not among the choices")
            call.spelled = call.arguments.choose(piece)
            call.text += call.spelled + call.arguments.go_on()
            call.chosen.append(piece)
        self._calls[name] = call
        if len(self._calls) > _MAX_OPEN_CALLS:
            self._calls.popitem(last=False)
        return call


@lru_cache(maxsize=_NUM_REMEMBERED)
def _validator(schema: str) -> Any:  # Any: the library has one class for each draft
    """Return what checks a text against a whole schema.

    Raises:
        GrammarError: it is no JSON schema.
    """
    from jsonschema import Draft202012Validator, SchemaError  # noqa: PLC0415
    from jsonschema.validators import validator_for  # noqa: PLC0415 - as in `misfit`

    parameters = object_schema(schema)
    kind = validator_for(parameters, default=Draft202012Validator)
    try:
        kind.check_schema(parameters)
    except SchemaError as error:
        raise GrammarError(_shortened(error.message)) from error
    return kind(parameters)


def _shortened(reason: str) -> str:
    reason = " ".join(reason.split())
    return reason if len(reason) <= MAX_REASON_CHARS else f"{reason[: MAX_REASON_CHARS - 1]}…"
