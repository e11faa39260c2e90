"""A text model answers, or does not, and whoever asks learns which, within bounds."""

import json
from typing import Any

import pytest

from model.messages import Tool
from server.config.delegate import DelegateSettings
from server.delegate.client import DelegateFailure, ask
from server.protocol.delegate.outcomes import AnswerCall, AnswerDone, AskModel
from tests.server.delegate.chat import Chat, chatting

_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = Tool("get_weather", "look outside", json.dumps(_SCHEMA))


def question(text: str, *tools: Tool) -> AskModel:
    """Ask something."""
    messages = ({"role": "user", "content": text},)
    return AskModel("ask_1", messages, tools, "auto" if tools else "none", 64)


async def answer(
    text: str, *tools: Tool, **settings: Any
) -> tuple[str, list[AnswerCall], AnswerDone, Chat]:
    """Ask a model, and return its words, its calls, its end, and it."""
    async with chatting() as (chat, url):
        given = DelegateSettings(url=url, model="big", authorization="token", **settings)
        words: list[str] = []
        calls, done = await ask(question(text, *tools), given, lambda each: words.append(each.text))
    return "".join(words), calls, done, chat


async def test_words_come_as_they_are_written_and_tokens_are_counted() -> None:
    """The request is as the API wants it."""
    words, calls, done, chat = await answer("hello you")
    assert words == "i heard user say hello you"
    assert not calls
    assert done == AnswerDone(
        "ask_1", is_cut=False, input_tokens=11, cached_tokens=3, output_tokens=7
    )
    assert chat.tokens == ["Bearer token"]
    assert chat.asked == [
        {
            "model": "big",
            "messages": [{"role": "user", "content": "hello you"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": 64,
        }
    ]


async def test_calls_are_put_together() -> None:
    """Their pieces come one by one."""
    _, calls, _, chat = await answer("weather", WEATHER)
    assert calls == [AnswerCall("ask_1", "get_weather", '{"city":"oslo"}')]
    (tool,) = chat.asked[0]["tools"]
    assert tool["function"]["name"] == "get_weather"
    assert chat.asked[0]["tool_choice"] == "auto"


async def test_an_answer_that_is_cut_says_so() -> None:
    """It has used up its tokens."""
    words, _, done, _ = await answer("cut")
    assert (words, done.is_cut) == ("It is", True)


@pytest.mark.parametrize(
    ("how", "said", "why"),
    [
        ("slow", "", "did not begin to answer within 0.5 s"),
        ("stuck", "It is", "did not finish its answer within 1 s"),
        ("much", None, "more than 20000 bytes"),
        ("broken", "It is", "broke off"),
        ("error", "It is", "broke off with an error"),
        ("filtered", "", "own filter"),
        ("refuse", "", "HTTP status 401"),
        ("redirect", "", "HTTP status 307"),
        ("html", "", "does not speak"),
        ("garbage", "", "does not speak"),
    ],
)
async def test_a_bad_answer_is_a_failure_with_a_reason(
    how: str, said: str | None, why: str
) -> None:
    """Whatever the server does, there is an end, and nothing that it let slip is in it."""
    async with chatting() as (_, url):
        # Only what must run out of time is short of it: a busy machine may be slow as well.
        limits: Any = {"slow": {"first_word_s": 0.5}, "stuck": {"timeout_s": 1}}.get(how, {})
        given = DelegateSettings(url=url, authorization="token", max_bytes=20_000, **limits)
        words: list[str] = []
        with pytest.raises(DelegateFailure, match=why) as failure:
            await ask(question(how), given, lambda each: words.append(each.text))
    assert said is None or "".join(words) == said
    assert "secret-detail" not in str(failure.value)
    assert "token" not in str(failure.value)


async def test_a_server_that_is_not_there() -> None:
    """Its port is closed."""
    async with chatting() as (_, url):
        pass
    with pytest.raises(DelegateFailure, match="cannot be reached"):
        await ask(question("hi"), DelegateSettings(url=url), lambda _: None)
