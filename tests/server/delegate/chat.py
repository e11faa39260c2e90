"""Serve Chat Completions on loopback: an answer by the words of the question, well or badly."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.server.mcp.serving import serving

Json = dict[str, Any]


def event(delta: Json, finish: str | None = None) -> str:
    """Write one event of a stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return _data({"id": "c", "object": "chat.completion.chunk", "choices": [choice]})


def _data(value: Json) -> str:
    return f"data: {json.dumps(value)}\n\n"


def call(name: str, arguments: str) -> list[str]:
    """Write a call in two pieces, as servers do."""
    half = len(arguments) // 2
    first = {"index": 0, "id": "x", "type": "function", "function": {"name": name}}
    pieces = [{"index": 0, "function": {"arguments": arguments[:half]}}]
    rest = [{"index": 0, "function": {"arguments": arguments[half:]}}]
    return [event({"tool_calls": each}) for each in ([first], pieces, rest)]


def end(finish: str = "stop") -> list[str]:
    """Write the end of an answer, and what it has cost."""
    usage = {
        "prompt_tokens": 11,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 3},
    }
    return [event({}, finish), _data({"choices": [], "usage": usage}), "data: [DONE]\n\n"]


class Chat:
    """A text model.

    Attributes:
        asked: the bodies of its requests.
        tokens: their authorizations.
        is_asked: set when a request is being answered.
        gone: set when a client has left before its answer's end.
    """

    def __init__(self) -> None:
        self.asked: list[Json] = []
        self.tokens: list[str | None] = []
        self.is_asked = asyncio.Event()
        self.gone = asyncio.Event()

    async def answer(self, request: Request) -> Response:
        """Answer by the last words of the user."""
        body = await request.json()
        self.asked.append(body)
        self.tokens.append(request.headers.get("authorization"))
        last = body["messages"][-1]
        about = last["content"] if last["role"] in ("user", "tool") else ""
        match about.split(" ", 1)[0]:
            case "refuse":
                return Response('{"error": "secret-detail"}', 401)
            case "redirect":
                return RedirectResponse("http://169.254.169.254/latest", 307)
            case "html":
                return Response("<html></html>", media_type="text/html")
            case "garbage":
                return Response("data: {nonsense\n\n", media_type="text/event-stream")
            case _:
                stream = self._stream(about, last["role"])
                return StreamingResponse(stream, media_type="text/event-stream")

    async def _stream(self, about: str, role: str) -> AsyncIterator[str]:
        self.is_asked.set()
        is_whole = False
        try:
            async for text in self._said(about, role):
                yield text
            is_whole = True
        finally:
            if not is_whole:
                self.gone.set()

    async def _said(self, about: str, role: str) -> AsyncIterator[str]:
        yield ": a comment\n\n"
        yield event({"role": "assistant", "content": ""})
        what = about.split(" ", 1)[0]
        if what == "weather" and role == "tool":
            what = ""
        for text in _SAID.get(what, ()):
            yield text
        if what in ("slow", "stuck"):
            await asyncio.sleep(60)
        if what in _SAID:
            return
        for number, word in enumerate(f"i heard {role} say {about}".split()):
            yield event({"content": word if not number else f" {word}"})
        for text in end():
            yield text


# What is said to a question that begins with a word.
_SAID = {
    "slow": [],
    "stuck": [event({"content": "It is"})],
    "much": [event({"content": "word " * 100})] * 200,
    "broken": [event({"content": "It is"})],
    "error": [event({"content": "It is"}), _data({"error": {"message": "secret-detail"}})],
    "filtered": end("content_filter"),
    "cut": [event({"content": "It is"}), *end("length")],
    "weather": [*call("get_weather", '{"city":"oslo"}'), *end("tool_calls")],
    "wrong": [*call("get_weather", '{"town":"oslo"}'), *end("tool_calls")],
}


@contextlib.asynccontextmanager
async def chatting() -> AsyncIterator[tuple[Chat, str]]:
    """Serve a text model, and yield it and its URL."""
    chat = Chat()
    app = Starlette(routes=[Route("/v1/chat/completions", chat.answer, methods=["POST"])])
    async with serving(app) as url:
        yield chat, f"{url}/v1"
