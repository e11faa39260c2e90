"""Settings of what is checked before anybody is told."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from server.config.strict import Strict

_Judged = Annotated[tuple[Literal["input", "output", "calls"], ...], Field(min_length=1)]


class _CheckBase(Strict):
    """What all checks have.

    Attributes:
        of: what it judges: "input" what the user said or typed, "output" the words of replies,
            "calls" the arguments of function calls.
        budget_ms: how long it may take.
        when_late: what becomes of the words if it takes longer, or fails: they pass, or are held
            back as if they were refused.
    """

    of: _Judged = ("input", "output", "calls")
    budget_ms: Annotated[int, Field(ge=1, le=10_000)] = 100
    when_late: Literal["pass", "hold"] = "hold"


class WordCheck(_CheckBase):
    """Refuse text with one of these words or phrases, as whole words, in upper or lower case."""

    kind: Literal["words"]
    words: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]


class PatternCheck(_CheckBase):
    """Refuse text in which a pattern is found: RE2's syntax, upper and lower case alike."""

    kind: Literal["patterns"]
    patterns: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]


class PersonalCheck(_CheckBase):
    """Find personal data.

    Attributes:
        of: calls are not in it by default: whoever books a table by a function has to give it a
            phone number.
        find: what is looked for.
        action: whether it is masked or refused; in what is spoken, and in calls, it is always
            refused.
        region: country (ISO 3166-1, two letters) of phone numbers that say none.
    """

    kind: Literal["personal"]
    of: _Judged = ("input", "output")
    find: Annotated[tuple[Literal["phone", "email", "card"], ...], Field(min_length=1)] = (
        "phone",
        "email",
        "card",
    )
    action: Literal["mask", "refuse"] = "refuse"
    region: Annotated[str, Field(pattern=r"^[A-Z]{2}$")] = "US"


class OffensiveCheck(_CheckBase):
    """Refuse what a classifier of English finds offensive; it runs here, in a package of its own.

    Attributes:
        threshold: probability from which on words are refused.
    """

    kind: Literal["offensive"]
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.8


class _RemoteCheck(_CheckBase):
    """Ask another server, in the form of OpenAI's API.

    Attributes:
        url: of its API, such as `http://127.0.0.1:8001/v1`.
        model: to be asked.
        api_key: sent as a bearer token.
    """

    url: Annotated[str, Field(pattern=r"^https?://[^@#]+$")]
    model: str
    api_key: str | None = Field(default=None, repr=False)


class ModerationsCheck(_RemoteCheck):
    """Refuse what a `/moderations` endpoint flags.

    Attributes:
        categories: those that count; empty: all of them.
    """

    kind: Literal["moderations"]
    categories: tuple[str, ...] = ()


class ChatCheck(_RemoteCheck):
    """Refuse what a chat model calls unsafe.

    Attributes:
        template: the question, with `{text}` where the words stand.
        refuses: pattern (RE2) found in an answer that refuses.
    """

    kind: Literal["chat"]
    template: Annotated[str, Field(pattern=r"\{text\}")]
    refuses: str = "(?i)^\\s*unsafe"


CheckSettings: TypeAlias = (
    WordCheck | PatternCheck | PersonalCheck | OffensiveCheck | ModerationsCheck | ChatCheck
)


class FilterSettings(Strict):
    """What is checked before anybody is told; see docs/safety.md.

    Attributes:
        checks: all of them judge at the same time; what one refuses is refused.
        sentence: what the model says in the place of what was refused, in a response of its own;
            empty for nothing. It is not checked, and made of words that the model can say. A model
            that listens and speaks at once says its own words only.
    """

    checks: tuple[Annotated[CheckSettings, Field(discriminator="kind")], ...] = ()
    sentence: Annotated[str, Field(max_length=400)] = ""
