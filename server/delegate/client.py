"""Ask an API like OpenAI's Chat Completions, and read the answer as it comes.

A question is one request over the transport that MCP servers are reached by (`server.mcp.guard`):
one origin, no redirects elsewhere, nothing compressed, so many bytes and no more.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from server.config.delegate import DelegateSettings
from server.errors import ParleyError
from server.mcp.errors import McpFailure
from server.protocol.delegate.outcomes import AnswerCall, AnswerDone, AnswerText, AskModel

if TYPE_CHECKING:
    import httpx2

_MAX_CALLS = 16  # of one answer
_NOT_CHAT = "The text model's server does not speak as the Chat Completions API does."
_LATE = "The text model did not begin to answer within {:g} s."
_BROKEN_OFF = "The text model broke off in the middle of its answer."
_SLOW = "The text model did not finish its answer within {:g} s."


class DelegateFailure(ParleyError):  # noqa: N818 - as `McpFailure`
    """Report that the text model did not answer; the message holds nothing secret."""


class _Lenient(BaseModel):
    """Take the known keys of an event, and ignore others: servers add keys of their own."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Function(_Lenient):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(_Lenient):
    index: int = Field(default=0, ge=0, lt=_MAX_CALLS)
    function: _Function = _Function()


class _Delta(_Lenient):
    content: str | None = None
    tool_calls: tuple[_ToolCall, ...] | None = None


class _Choice(_Lenient):
    delta: _Delta = _Delta()
    finish_reason: str | None = None


class _Details(_Lenient):
    cached_tokens: int | None = None


class _Usage(_Lenient):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None


class _Chunk(_Lenient):
    """One event. Source: Chat Completions API reference, "The chat completion chunk object"."""

    choices: tuple[_Choice, ...] = ()
    usage: _Usage | None = None
    error: Any = None


# A worked example. The server sends four events:
#
#     {"choices": [{"delta": {"content": "Let me"}}]}             two words: passed on at once
#     {"choices": [{"delta": {"tool_calls": [{"index": 0,
#         "function": {"name": "weather", "arguments": ""}}]}}]}  a call begins
#     {"choices": [{"delta": {"tool_calls": [{"index": 0,
#         "function": {"arguments": "{}"}}]}}]}                   and its arguments follow
#     {"choices": [{"finish_reason": "tool_calls"}]}              the end
#
# Words go out as they come. A call goes out at the end, since half a call is of no use.
@dataclass(slots=True)
class _Answer:
    """Put an answer together from its events."""

    calls: dict[int, list[str]] = field(default_factory=dict)  # index → name, arguments
    num_texts: int = 0
    usage: _Usage | None = None
    finish_reason: str | None = None

    @property
    def has_begun(self) -> bool:
        """Say whether there are words, or a call."""
        return bool(self.num_texts or self.calls)

    def take(self, chunk: _Chunk) -> str:
        """Take an event and return the words in it."""
        if chunk.error is not None:
            raise DelegateFailure("The text model broke off with an error.")
        self.usage = chunk.usage or self.usage
        text = ""
        for choice in chunk.choices[:1]:
            self.finish_reason = choice.finish_reason or self.finish_reason
            text += choice.delta.content or ""
            for call in choice.delta.tool_calls or ():
                made = self.calls.setdefault(call.index, ["", ""])
                made[0] += call.function.name or ""
                made[1] += call.function.arguments or ""
        self.num_texts += bool(text)
        return text

    def done(self, ask_id: str) -> AnswerDone:
        """Return its end. If the server reports no tokens, the pieces that it sent are counted."""
        usage = self.usage or _Usage(completion_tokens=self.num_texts)
        details = usage.prompt_tokens_details or _Details()
        return AnswerDone(
            ask_id,
            self.finish_reason == "length",
            usage.prompt_tokens,
            min(details.cached_tokens or 0, usage.prompt_tokens),
            usage.completion_tokens,
        )


async def ask(
    question: AskModel, settings: DelegateSettings, take: Callable[[AnswerText], None]
) -> tuple[list[AnswerCall], AnswerDone]:
    """Ask, and return the calls of the answer and its end.

    Args:
        question: to be asked.
        settings: where, and within which bounds.
        take: takes the answer's words as they come.

    Raises:
        DelegateFailure: there is no answer, or not all of it.
    """
    begun_s = asyncio.get_running_loop().time()
    answer = _Answer()
    try:
        # Two limits, one after the other. A model that does not begin soon is given up early, while
        # the served model can still answer instead.
        async with (
            asyncio.timeout(settings.first_word_s) as limit,
            aclosing(_chunks(question, settings)) as chunks,
        ):
            async for chunk in chunks:
                had_begun = answer.has_begun
                text = answer.take(chunk)
                if answer.has_begun and not had_begun:
                    limit.reschedule(begun_s + settings.timeout_s)
                if text:
                    take(AnswerText(question.ask_id, text))
    except TimeoutError:
        text, seconds = _LATE, settings.first_word_s
        if answer.has_begun:
            text, seconds = _SLOW, settings.timeout_s
        raise DelegateFailure(text.format(seconds)) from None
    if answer.finish_reason is None:
        raise DelegateFailure(_BROKEN_OFF)
    if answer.finish_reason == "content_filter":
        raise DelegateFailure("The text model's own filter has stopped the answer.")
    calls = [
        AnswerCall(question.ask_id, name, arguments or "{}")
        for _, (name, arguments) in sorted(answer.calls.items())
    ]
    return calls, answer.done(question.ask_id)


async def _chunks(question: AskModel, settings: DelegateSettings) -> AsyncGenerator[_Chunk]:
    """Yield the events of an answer.

    Raises:
        DelegateFailure: the server cannot be reached, refuses, sends too much, or sends something
            else than such events.
    """
    import httpx2  # noqa: PLC0415 - it takes a while, and is loaded where it is used

    from server.mcp.guard import GuardedTransport  # noqa: PLC0415

    assert settings.url is not None, "there is a text model"
    transport = GuardedTransport(settings.url, is_trusted=True, max_bytes=settings.max_bytes)
    try:
        # Time is bounded by `ask`, as a whole.
        async with (
            httpx2.AsyncClient(transport=transport, timeout=None, trust_env=False) as client,
            client.stream(
                "POST",
                f"{settings.url.rstrip('/')}/chat/completions",
                headers=_headers(settings),
                json=_body(question, settings),
            ) as response,
        ):
            _check(response)
            async for event in httpx2.EventSource(response):
                if event.data.strip() == "[DONE]":
                    return
                yield _Chunk.model_validate_json(event.data)
    except McpFailure as failure:
        raise DelegateFailure(
            str(failure).replace("The server", "The text model's server")
        ) from None
    except (ValidationError, httpx2.SSEError, UnicodeError, RecursionError):
        raise DelegateFailure(_NOT_CHAT) from None
    except httpx2.TransportError:
        if transport.refusal is not None:
            raise DelegateFailure(str(transport.refusal)) from None
        raise DelegateFailure("The text model's server cannot be reached.") from None


def _check(response: "httpx2.Response") -> None:
    if response.status_code != 200:
        status = response.status_code
        raise DelegateFailure(f"The text model's server answered with HTTP status {status}.")
    kind = response.headers.get("content-type", "")
    if not kind.lower().startswith("text/event-stream"):
        raise DelegateFailure(_NOT_CHAT)


def _headers(settings: DelegateSettings) -> dict[str, str]:
    headers = {name.lower(): value for name, value in settings.headers.items()}
    if settings.authorization is not None:
        headers["authorization"] = f"Bearer {settings.authorization}"
    return headers


def _body(question: AskModel, settings: DelegateSettings) -> dict[str, Any]:
    """Write the request. Source: Chat Completions API reference, "Create chat completion"."""
    body: dict[str, Any] = {
        "model": settings.model,
        "messages": [*question.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        # Newer models of OpenAI's call it max_completion_tokens; vLLM, Ollama and others know this.
        "max_tokens": question.max_tokens,
    }
    if not question.tools or question.tool_choice == "none":
        return body
    body["tools"] = [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": json.loads(tool.parameters),
            },
        }
        for tool in question.tools
    ]
    body["tool_choice"] = question.tool_choice
    return body
