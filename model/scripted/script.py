"""Read a script: what the scripted engine hears, says and calls, and how fast.

A script is checked as a whole before anything runs. What is wrong with it is a `ScriptError` that
names the place, such as `reply[2].when.user`. docs/scripted.md describes the format.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)

from model.errors import ScriptError
from model.scripted.template import NAMES, placeholders


def _compiled(pattern: object) -> object:
    if not isinstance(pattern, str):
        raise ValueError("expected a regular expression as text")  # noqa: TRY004 - for pydantic
    try:
        # Patterns are found anywhere and in whatever case, since nobody knows how a transcript is
        # written.
        return re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None


def _entry(value: object) -> object:
    return {"text": value} if isinstance(value, str) else value


def _listed(value: object) -> object:
    return [value] if isinstance(value, dict) else value


Pattern = Annotated[re.Pattern[str], BeforeValidator(_compiled)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Hear(_Strict):
    """One spoken turn of the user: what it is understood as.

    Attributes:
        text: its words.
        min_ms: shortest audio that it fits, in milliseconds.
        max_ms: longest; None for no bound.
        repeat: whether it can be heard more than once.
        unfinished: whether it never sounds finished, so that no end of turn is reported.
        logprobs: log-probability of each of its words; none if the script does not care.
    """

    text: str
    min_ms: Annotated[int, Field(ge=0)] = 0
    max_ms: Annotated[int, Field(ge=1)] | None = None
    repeat: bool = False
    unfinished: bool = False
    logprobs: Annotated[
        tuple[Annotated[float, Field(le=0, strict=False)], ...], Field(strict=False)
    ] = ()

    @model_validator(mode="after")
    def _has_one_each(self) -> Self:
        if self.logprobs and len(self.logprobs) != len(self.words):
            problem = f"{len(self.logprobs)} logprobs for {len(self.words)} words"
            raise ValueError(f"{problem}: give one for each, or none")
        return self

    @model_validator(mode="after")
    def _is_range(self) -> Self:
        if self.max_ms is not None and self.max_ms < self.min_ms:
            raise ValueError(f"max_ms {self.max_ms} is less than min_ms {self.min_ms}")
        return self

    @property
    def words(self) -> list[str]:
        """Return the words of its text."""
        return self.text.split()


class When(_Strict):
    """Say which responses a reply is for: all that is given must hold.

    Attributes:
        user: found in the user's last words, which are what the response answers.
        output: found in what functions returned since then, if that is what it answers.
        function: name of a function that returned something since then.
        history: found in everything that is remembered, as `{history}` writes it.
        turn: how many turns the user has had, this one included.
        instructions: found in the instructions that are in force.
        image: found in what is seen in the user's last turn, as `{images}` writes it.
    """

    user: Pattern | None = None
    output: Pattern | None = None
    function: str | None = None
    history: Pattern | None = None
    turn: Annotated[int, Field(ge=1)] | None = None
    instructions: Pattern | None = None
    image: Pattern | None = None

    @property
    def patterns(self) -> list[re.Pattern[str]]:
        """Return the regular expressions that are given."""
        given = (self.user, self.output, self.history, self.instructions, self.image)
        return [pattern for pattern in given if pattern is not None]


class ScriptedCall(_Strict):
    """A function call.

    Attributes:
        name: of the function.
        arguments: texts in them are templates.
    """

    name: Annotated[str, Field(min_length=1)]
    arguments: dict[str, JsonValue] = {}


class Pace(_Strict):
    """Say how fast replies are made.

    Attributes:
        first_output_ms: from the request of a response to its first output.
        write_ms: for each word written, and each eight characters of a call's arguments.
        words_per_minute: how fast replies are spoken; every word takes the same time.
        real_time_factor: seconds that it takes to make a second of audio; above 1 it comes late.
    """

    first_output_ms: Annotated[int, Field(ge=0)] = 100
    write_ms: Annotated[int, Field(ge=0)] = 5
    words_per_minute: Annotated[int, Field(ge=30, le=600)] = 150
    real_time_factor: Annotated[float, Field(ge=0, strict=False)] = 0.1


class PaceChange(_Strict):
    """Change the pace for one reply; what is not given stays."""

    first_output_ms: Annotated[int, Field(ge=0)] | None = None
    write_ms: Annotated[int, Field(ge=0)] | None = None
    words_per_minute: Annotated[int, Field(ge=30, le=600)] | None = None
    real_time_factor: Annotated[float, Field(ge=0, strict=False)] | None = None

    def of(self, pace: Pace) -> Pace:
        """Return the changed pace."""
        return pace.model_copy(update=self.model_dump(exclude_none=True))


class Rule(_Strict):
    """One reply, and when to give it.

    Attributes:
        when: which responses it is for; all of them, if nothing is given.
        say: template of its words; empty for none.
        call: function calls that follow the words, one or several.
        fail: makes the response fail after all that, with this message.
        lose_session: loses the whole session after all that, with this message.
        at_most: how often a session is given this reply; None for no bound.
        pace: how fast it is made, where that differs from the script's pace.
    """

    when: When = When()
    say: str = ""
    call: Annotated[tuple[ScriptedCall, ...], Field(strict=False), BeforeValidator(_listed)] = ()
    fail: str | None = None
    lose_session: str | None = None
    at_most: Annotated[int, Field(ge=1)] | None = None
    pace: PaceChange = PaceChange()

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.fail is not None and self.lose_session is not None:
            raise ValueError("a reply either fails or loses the session, not both")
        # A worked example: `user: my name is (?P<name>\w+)` with `say: hello {name}`. The group is
        # known in the texts of its own reply. `{nome}` would be an unknown placeholder, found when
        # the script is read and not in the middle of a call.
        groups = {name for pattern in self.when.patterns for name in pattern.groupindex}
        taken = groups & NAMES
        if taken:
            raise ValueError(f"the group {min(taken)!r} has the name of a placeholder")
        for text in (self.say, *_texts([call.arguments for call in self.call])):
            unknown = placeholders(text) - groups - NAMES
            if unknown:
                known = ", ".join(f"{{{name}}}" for name in sorted(groups | NAMES))
                raise ValueError(f"unknown placeholder {{{min(unknown)}}}; known are {known}")
        return self


class Script(_Strict):
    """Everything that the scripted engine does.

    Attributes:
        hear: spoken turns; each is understood as the first entry that fits and is not used up.
        reply: a response is the first reply that fits.
        pace: how fast replies are made.
    """

    hear: Annotated[tuple[Annotated[Hear, BeforeValidator(_entry)], ...], Field(strict=False)] = ()
    reply: Annotated[tuple[Rule, ...], Field(strict=False, min_length=1)]
    pace: Pace = Pace()


def load_script(path: Path) -> Script:
    """Read a script from a YAML file.

    Raises:
        ScriptError: it cannot be read, or is no script; the message names the place.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ScriptError(f"{path}: cannot be read: {reason}") from None
    return parse_script(text, str(path))


def parse_script(text: str, source: str) -> Script:
    """Read a script from YAML.

    Args:
        text: the YAML.
        source: where it stands, for messages.

    Raises:
        ScriptError: it is no script; the message names the place.
    """
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ScriptError(f"{source}: is not valid YAML: {reason}") from None
    try:
        return Script.model_validate(tree)
    except ValidationError as error:
        raise ScriptError(_first_problem(error, source)) from None


def _texts(value: Any) -> list[str]:  # Any: whatever JSON can hold
    """Return all texts in a JSON value, keys aside."""
    match value:
        case str():
            return [value]
        case dict():
            return [text for part in value.values() for text in _texts(part)]
        case list():
            return [text for part in value for text in _texts(part)]
        case _:
            return []


def _first_problem(error: ValidationError, source: str) -> str:
    """Write the first problem in one line: where it stands, and what is wrong."""
    problem = error.errors()[0]
    place = ""
    # ("reply", 2, "when", "user") is written as reply[2].when.user.
    for part in problem["loc"]:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else str(part)
    if problem["type"] == "extra_forbidden":
        return f"{source}: {place}: there is no such key"
    message = problem["msg"].removeprefix("Value error, ")
    got = "" if problem["type"] in ("value_error", "missing") else f", got {problem['input']!r}"
    return f"{source}: {place or 'the script'}: {message}{got}"
