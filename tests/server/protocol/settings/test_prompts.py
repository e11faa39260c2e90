"""Prompts are filled in by their variables, or refused with a reason."""

from dataclasses import replace
from typing import Any

import pytest

from server.errors import ClientError
from server.protocol.settings.prompts import NO_PROMPTS, PromptBook, Template
from tests.server.protocol.harness import CONFIG

BOOK = PromptBook(
    {
        "guide": Template(
            {"1": "You are {{name}}.", "2": "You are {{ name }} of {{city}}, {{name}}."}, "2"
        )
    }
)


def test_variables_are_filled_in_once() -> None:
    """What a client fills in is no template; what is not asked for is left alone."""
    variables = {"name": "{{city}}", "city": {"type": "input_text", "text": "Oslo"}, "more": "x"}
    prompt = {"id": "guide", "variables": variables}
    assert BOOK.text(prompt) == "You are {{city}} of Oslo, {{city}}."
    assert BOOK.text({**prompt, "version": "1"}) == "You are {{city}}."


def test_what_a_session_says_overrides_its_prompt() -> None:
    """And without either there is nothing."""
    prompt = {"id": "guide", "version": "1", "variables": {"name": "Ada"}}
    config = replace(CONFIG, prompt=prompt)
    assert BOOK.instructions(config) == "You are Ada."
    assert BOOK.instructions(replace(config, instructions="be brief")) == "be brief"
    assert BOOK.instructions(CONFIG) == ""


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"id": "pmpt_other"}, "invalid_value", "session.prompt.id"),
        ({"version": "3"}, "invalid_value", "session.prompt.version"),
        ({"variables": None}, "missing_required_parameter", "session.prompt.variables.name"),
        (
            {"variables": {"name": {"type": "input_image", "image_url": "x"}}},
            "unsupported_parameter",
            "session.prompt.variables.name",
        ),
        ({"variables": {"name": "x" * 65_536}}, "string_above_max_length", "session.prompt"),
    ],
)
def test_what_cannot_be_filled_in_is_refused(
    changes: dict[str, Any], code: str, param: str
) -> None:
    """By the place in the session."""
    prompt = {"id": "guide", "version": "1", "variables": {"name": "Ada"}, **changes}
    with pytest.raises(ClientError) as refused:
        BOOK.check(prompt, "session.prompt")
    assert (refused.value.code, refused.value.param) == (code, param)
    assert BOOK.text(prompt) == ""


def test_without_prompts_those_of_another_service_mean_nothing() -> None:
    """They are echoed, as by a server that never had any."""
    NO_PROMPTS.check({"id": "pmpt_other"}, "session.prompt")
    assert NO_PROMPTS.text({"id": "pmpt_other"}) == ""
