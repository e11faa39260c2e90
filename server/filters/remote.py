"""Ask another server whether words may pass, in the form of OpenAI's API."""

import json
from typing import Any

import httpx2
import re2

from server.config.filters import ChatCheck, ModerationsCheck
from server.errors import ConfigError
from server.filters.checks import Finding

_MAX_BYTES = 256 * 1024  # of an answer


class CheckError(Exception):
    """Words cannot be judged; the text says why, without them."""


class _Remote:
    """Hold the connections to one server: no redirects, nothing compressed, no proxy."""

    def __init__(self, settings: ModerationsCheck | ChatCheck) -> None:
        # What is compressed may be a thousand times as large when it is not.
        headers = {"accept-encoding": "identity"}
        if settings.api_key:
            headers["authorization"] = f"Bearer {settings.api_key}"
        self._url = settings.url.rstrip("/")
        # `FilterDesk` keeps the time budget and gives up a late answer.
        self._client = httpx2.AsyncClient(
            headers=headers, follow_redirects=False, timeout=10.0, trust_env=False
        )

    async def _ask(self, path: str, body: dict[str, Any]) -> Any:
        try:
            async with self._client.stream("POST", f"{self._url}{path}", json=body) as answer:
                if answer.status_code != httpx2.codes.OK:
                    raise CheckError(f"the server answered {answer.status_code}")
                if answer.headers.get("content-encoding", "identity").lower() != "identity":
                    raise CheckError("the server compresses, though it was asked not to")
                data = b""
                async for chunk in answer.aiter_raw():
                    data += chunk
                    if len(data) > _MAX_BYTES:
                        raise CheckError(f"the answer is longer than {_MAX_BYTES} bytes")
                return json.loads(data)
        except (httpx2.HTTPError, ValueError, RecursionError) as error:
            raise CheckError(f"{type(error).__name__}") from None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


class Moderations(_Remote):
    """Ask a `/moderations` endpoint.

    Source: OpenAI API reference, moderations.
    """

    def __init__(self, settings: ModerationsCheck) -> None:
        super().__init__(settings)
        self._model = settings.model
        self._categories = frozenset(settings.categories)

    async def judge(self, text: str) -> Finding:
        """Return what is found in a text.

        Raises:
            CheckError: it cannot be judged.
        """
        answer = await self._ask("/moderations", {"model": self._model, "input": text})
        try:
            (result,) = answer["results"]
            if not self._categories:
                return Finding(is_refused=result["flagged"] is True)
            flagged = {name for name, value in result["categories"].items() if value is True}
        except (KeyError, TypeError, ValueError, AttributeError):
            raise CheckError("the answer is no moderation result") from None
        return Finding(is_refused=not self._categories.isdisjoint(flagged))


class Chat(_Remote):
    """Ask a chat model, by a template; a pattern found in its answer refuses the words.

    Source: OpenAI API reference, chat completions.

    Raises:
        ConfigError: the pattern that refuses is not valid.
    """

    def __init__(self, settings: ChatCheck) -> None:
        try:
            self._refuses = re2.compile(settings.refuses)
        except re2.error as error:
            raise ConfigError(f"filters.checks: {settings.refuses!r}: {error}") from None
        super().__init__(settings)
        self._model, self._template = settings.model, settings.template

    async def judge(self, text: str) -> Finding:
        """Return what is found in a text.

        Raises:
            CheckError: it cannot be judged.
        """
        content = self._template.replace("{text}", text)
        messages = [{"role": "user", "content": content}]
        body = {"model": self._model, "messages": messages, "temperature": 0, "max_tokens": 16}
        answer = await self._ask("/chat/completions", body)
        try:
            verdict = answer["choices"][0]["message"]["content"]
            return Finding(is_refused=self._refuses.search(verdict) is not None)
        except (KeyError, IndexError, TypeError):
            raise CheckError("the answer is no chat completion") from None
