"""Settings of a text model that answers what the served one cannot."""

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from server.config.strict import Strict

DelegateAnswers: TypeAlias = Literal["unable", "always", "never"]


class DelegateSettings(Strict):
    """Which text model answers what the served model cannot; see docs/tools.md.

    Attributes:
        url: of an API like OpenAI's Chat Completions, up to `/v1`: vLLM, Ollama, a hosted one. None
            for no such model. Any address is fine, also one of this machine.
        model: that is asked for there.
        authorization: token that is sent as `Authorization: Bearer …`.
        headers: that are sent beside it.
        answers: "unable" what the served model says it cannot answer, "always" everything, "never"
            nothing; a client may say otherwise, by `delegate` of its session or of a response.
        phrases: words with which the served model begins a reply that it cannot give.
        instructions: that the text model is given before a session's own.
        first_word_s: how long it may take to begin an answer; then the served model's stands.
        timeout_s: how long the whole answer may take.
        max_tokens: of an answer; a response may ask for fewer.
        max_bytes: of all that is sent for an answer.
        max_chars: of the conversation that is shown to it, the newest.
        max_asks: questions of one session at a time; more wait.
    """

    url: Annotated[str, Field(pattern=r"^https?://[^@#?]+$")] | None = None
    model: Annotated[str, Field(min_length=1)] = "default"
    authorization: str | None = Field(default=None, repr=False)
    headers: Mapping[str, str] = Field(default_factory=dict, repr=False)
    answers: DelegateAnswers = "unable"
    # The starter's own words, docs/starter.md.
    phrases: tuple[Annotated[str, Field(min_length=1)], ...] = ("sorry i do not know that",)
    instructions: str = (
        "You answer in a spoken conversation: briefly, in plain sentences, without lists, markup "
        "or links."
    )
    first_word_s: Annotated[float, Field(gt=0)] = 10.0
    timeout_s: Annotated[float, Field(gt=0)] = 60.0
    max_tokens: Annotated[int, Field(ge=1)] = 1_024
    max_bytes: Annotated[int, Field(ge=1_024)] = 1 << 20
    max_chars: Annotated[int, Field(ge=1_024)] = 32_768
    max_asks: Annotated[int, Field(ge=1)] = 4
