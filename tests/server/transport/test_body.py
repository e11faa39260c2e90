"""Bodies are read up to a bound, whatever their header says of their length."""

from collections.abc import AsyncIterator

import pytest
from starlette.requests import Request
from starlette.types import Message

from server.transport.body import read_body
from server.transport.envelope import RefusedError
from tests.server.transport.asking import new_app


def _request(chunks: list[bytes]) -> tuple[Request, list[bytes]]:
    """Return a request that sends chunks, and those that it has not sent yet."""
    left = [*chunks]

    async def messages() -> AsyncIterator[Message]:
        while left:
            chunk = left.pop(0)
            yield {"type": "http.request", "body": chunk, "more_body": bool(left)}

    stream = messages()

    async def receive() -> Message:
        return await anext(stream)

    scope = {"type": "http", "headers": [(b"content-length", b"3")]}
    return Request({**scope, "app": new_app(max_body_bytes=2_048)}, receive), left


async def test_a_body_is_read_whole() -> None:
    """In as many pieces as it comes in."""
    request, left = _request([b"a" * 1_024, b"b" * 1_024])
    assert await read_body(request) == b"a" * 1_024 + b"b" * 1_024
    assert left == []


async def test_a_body_that_is_too_large_is_not_read_to_its_end() -> None:
    """Its header may say less; what counts is what comes."""
    request, left = _request([b"a" * 1_024, b"b" * 1_025, b"c"])
    with pytest.raises(RefusedError, match="at most 2048 bytes") as refused:
        await read_body(request)
    assert refused.value.status == 413
    assert left == [b"c"]
