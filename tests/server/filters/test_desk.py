"""Checks of one session: budgets, failures, and other servers that are asked."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from server.config.filters import FilterSettings
from server.errors import ConfigError
from server.filters.desk import FilterDesk
from server.protocol.filters.verdicts import CheckWords, FilterPlan, Verdict
from server.protocol.wire.client_events import ItemCreate

Answer = Callable[[str, dict[str, str], Any], tuple[int, bytes] | None]


@asynccontextmanager
async def _serving(answer: Answer, *headers_sent: str) -> AsyncIterator[str]:
    """Serve HTTP on a free port: what `answer` makes of path, headers and body; None: nothing."""
    writers: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        answered = answer(first.split()[1], headers, body)
        if answered is None:
            return
        status, data = answered
        length = f"content-length: {len(data)}"
        lines = [f"HTTP/1.1 {status} X", length, "connection: close", *headers_sent, "", ""]
        writer.write("\r\n".join(lines).encode() + data)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        for writer in writers:
            writer.close()


async def _judged(check: dict[str, Any], text: str, direction: Any = "written") -> str | None:
    settings = {"budget_ms": 10_000, **check}
    desk = FilterDesk(FilterSettings.model_validate({"checks": [settings]}))
    try:
        verdict = await desk.judged(CheckWords(1, direction, text), "sess_1")
    finally:
        await desk.close()
    assert verdict.key == 1
    return verdict.words


def test_the_plan_is_what_some_check_judges() -> None:
    """Nothing is held where nobody looks."""
    checks = [{"kind": "words", "words": ["a"], "of": ["output"]}]
    assert FilterDesk(FilterSettings()).plan == FilterPlan()
    given = FilterSettings.model_validate({"checks": checks})
    assert FilterDesk(given).plan == FilterPlan(hears=False, says=True)


def test_what_is_no_pattern_is_refused_at_the_start() -> None:
    """The server does not begin with it."""
    for check in (
        {"kind": "patterns", "patterns": ["("]},
        {"kind": "chat", "url": "http://x/v1", "model": "m", "template": "{text}", "refuses": "("},
    ):
        with pytest.raises(ConfigError, match=r"filters\.checks"):
            FilterDesk(FilterSettings.model_validate({"checks": [check]}))


async def test_each_direction_has_its_checks() -> None:
    """A check of replies lets the user say anything."""
    check = {"kind": "words", "words": ["darn"], "of": ["output"]}
    assert await _judged(check, "darn", "heard") == "darn"
    assert await _judged(check, "darn", "spoken") is None


async def test_calls_are_judged_by_checks_of_calls() -> None:
    """Nothing in them can be masked: a function may not take it. Phone numbers belong there."""
    check = {"kind": "personal", "action": "mask"}
    assert await _judged(check, "a@example.com", "called") == "a@example.com"
    assert await _judged({**check, "of": ["calls"]}, "a@example.com", "called") is None
    assert await _judged({"kind": "words", "words": ["darn"]}, "darn", "called") is None


async def test_typed_words_are_judged_in_pieces_and_told_in_one() -> None:
    """Wherever a number stands in a long text, also across a border of two pieces."""
    check = {"kind": "personal", "action": "mask"}
    desk = FilterDesk(FilterSettings.model_validate({"checks": [check]}))
    filters = desk.for_session("sess_1", lambda _: None)
    for at in (0, 1_995, 3_990, 15_000):
        text = "x " * (at // 2) + "650-253-0000" + " y" * 1_000
        content = [{"type": "input_text", "text": text}]
        item: dict[str, Any] = {"type": "message", "role": "user", "content": content}
        event = await filters.typed(ItemCreate(None, item, None))
        (part,) = event.item["content"]
        assert part["text"] == text.replace("650-253-0000", "*" * 12), at
        assert item["content"][0]["text"] == text, "the client's own event is as it was"


async def test_what_checks_do_is_counted() -> None:
    """By their place and kind; every question has its time."""

    def answer(path: str, headers: dict[str, str], body: Any) -> tuple[int, bytes] | None:
        del path, headers
        return None if body["input"] == "slow" else (500, b"")

    async with _serving(answer) as url:
        remote = {"kind": "moderations", "url": url, "model": "m"}
        checks = [
            {"kind": "words", "words": ["darn"]},
            {**remote, "budget_ms": 1, "of": ["input"]},
            {**remote, "budget_ms": 10_000, "of": ["output"], "when_late": "pass"},
        ]
        desk = FilterDesk(FilterSettings.model_validate({"checks": checks}))
        assert (await desk.judged(CheckWords(1, "written", "darn"), "s")).words is None
        assert (await desk.judged(CheckWords(1, "written", "fine"), "s")).words == "fine"
        assert (await desk.judged(CheckWords(2, "heard", "slow"), "s")).words is None
        await desk.close()
    counts = desk.counts
    assert counts.hits == {"0:words": 1}
    assert counts.late == {"1:moderations": 1}
    assert counts.broken == {"2:moderations": 2}
    assert sum(counts.buckets) == 6


async def test_a_mask_is_of_new_words_only() -> None:
    """What has passed is not told again."""
    check = {"kind": "personal", "action": "mask"}
    desk = FilterDesk(FilterSettings.model_validate({"checks": [check]}))
    text = "mail a@example.com"
    assert await desk.judged(CheckWords(1, "written", text, 4), "s") == Verdict(1, " *************")
    assert await desk.judged(CheckWords(1, "spoken", text, 4), "s") == Verdict(1, None)


async def test_moderations_flag() -> None:
    """By the API's own form, with the key; of some categories only, where they are named."""
    seen: list[Any] = []

    def answer(path: str, headers: dict[str, str], body: Any) -> tuple[int, bytes]:
        seen.append((path, headers["authorization"], body))
        is_bad = "bad" in body["input"]
        result = {"flagged": is_bad, "categories": {"hate": is_bad, "violence": False}}
        return 200, json.dumps({"results": [result]}).encode()

    async with _serving(answer) as url:
        check = {"kind": "moderations", "url": url, "model": "m", "api_key": "secret"}
        assert await _judged(check, "bad") is None
        assert await _judged(check, "good") == "good"
        assert await _judged({**check, "categories": ["violence"]}, "bad") == "bad"
        assert await _judged({**check, "categories": ["hate"]}, "bad") is None
    assert seen[0] == ("/v1/moderations", "Bearer secret", {"model": "m", "input": "bad"})


async def test_a_chat_model_is_asked_by_the_template() -> None:
    """Its answer refuses where the pattern is found in it."""
    seen: list[Any] = []

    def answer(path: str, headers: dict[str, str], body: Any) -> tuple[int, bytes]:
        del headers
        content = body["messages"][0]["content"]
        seen.append((path, content))
        said = "unsafe\nS1" if "bad" in content else "safe"
        return 200, json.dumps({"choices": [{"message": {"content": said}}]}).encode()

    async with _serving(answer) as url:
        check = {"kind": "chat", "url": url, "model": "m", "template": "Is {text} safe?"}
        assert await _judged(check, "bad") is None
        assert await _judged(check, "good") == "good"
    assert seen[0] == ("/v1/chat/completions", "Is bad safe?")


@pytest.mark.parametrize(
    "answered",
    [
        (500, b"{}"),
        (302, b"{}"),
        (200, b"no json"),
        (200, b"{}"),
        (200, b'{"results": [1]}'),
        (200, b"[" * 100_000),
        (200, b'"' + b"a" * 300_000 + b'"'),
    ],
)
async def test_a_broken_check_does_what_is_chosen(answered: tuple[int, bytes]) -> None:
    """Its words pass, or are held back."""
    async with _serving(lambda *_: answered) as url:
        check = {"kind": "moderations", "url": url, "model": "m"}
        assert await _judged({**check, "when_late": "hold"}, "good") is None
        assert await _judged({**check, "when_late": "pass"}, "good") == "good"


async def test_what_is_compressed_is_not_read() -> None:
    """It may be a thousand times as large: the check is broken, although it was asked not to."""
    body = gzip.compress(b'{"results": [{"flagged": false}]}')
    asked: list[str] = []

    def answer(_path: str, headers: dict[str, str], _body: Any) -> tuple[int, bytes]:
        asked.append(headers["accept-encoding"])
        return 200, body

    async with _serving(answer, "content-encoding: gzip") as url:
        check = {"kind": "moderations", "url": url, "model": "m", "when_late": "hold"}
        assert await _judged(check, "good") is None
    assert asked == ["identity"]


async def test_words_go_to_the_server_and_not_to_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever set one for the environment did not mean what users say."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with _serving(lambda *_: (200, b'{"results": [{"flagged": false}]}')) as url:
        check = {"kind": "moderations", "url": url, "model": "m", "when_late": "hold"}
        assert await _judged(check, "good") == "good"


async def test_a_late_check_does_what_is_chosen() -> None:
    """The server never answers; the budget is over."""
    async with _serving(lambda *_: None) as url:
        check = {"kind": "moderations", "url": url, "model": "m", "budget_ms": 1}
        assert await _judged({**check, "when_late": "hold"}, "good") is None
        assert await _judged({**check, "when_late": "pass"}, "good") == "good"


async def test_a_session_that_ends_leaves_no_task() -> None:
    """What is being checked is given up, and nobody is told."""
    verdicts: list[Verdict] = []
    asked = asyncio.Event()

    def answer(*_: Any) -> None:
        asked.set()

    async with _serving(answer) as url:
        check = {"kind": "moderations", "url": url, "model": "m", "budget_ms": 10_000}
        desk = FilterDesk(FilterSettings.model_validate({"checks": [check]}))
        session = desk.for_session("sess_1", verdicts.append)
        for key in range(20):
            session.put(CheckWords(key, "heard", "words"))
        await asked.wait()
        await session.close()
        await desk.close()
    assert verdicts == []
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("check ")]


async def test_a_url_that_cannot_be_asked_is_a_failure() -> None:
    """As if the server had answered with an error."""
    check = {"kind": "moderations", "url": "http://127.0.0.1:1/v1", "model": "m"}
    assert await _judged(check, "good") is None
