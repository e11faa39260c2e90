"""An engine that hangs, in a real process of its own, and who hears of it in which order."""

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from model.engine.process import ProcessEngine, RestartPolicy
from model.messages import News
from server.config.settings import Settings
from server.session.link import LinkState
from tests.model.engine.test_process import StuckSpec
from tests.server.serving import Served, serving

TIMEOUT_S = 60.0


async def _until(client: ClientConnection, *kinds: str) -> dict[str, Any]:
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            event: dict[str, Any] = json.loads(await client.recv())
            if event["type"] in kinds:
                return event


async def _type(client: ClientConnection, text: str) -> None:
    content = [{"type": "input_text", "text": text}]
    item = {"type": "message", "role": "user", "content": content}
    await client.send(json.dumps({"type": "conversation.item.create", "item": item}))


async def _ask(client: ClientConnection, text: str) -> str:
    """Type a turn and return the written answer."""
    await _type(client, text)
    response = {"output_modalities": ["text"]}
    await client.send(json.dumps({"type": "response.create", "response": response}))
    words: str = (await _until(client, "response.output_text.done"))["text"]
    await _until(client, "response.done")
    return words


def _states(served: Served, monkeypatch: pytest.MonkeyPatch) -> list[LinkState]:
    """Return what becomes of the link to the engine, as it does."""
    link, states = served.pool.links[0], list[LinkState]()
    tell = link._tell

    def noting(news: News) -> None:
        tell(news)
        states.append(link.state)

    monkeypatch.setattr(link, "_tell", noting)
    return states


async def test_a_hung_engine_is_replaced_and_its_callers_hear_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever it hung on is closed; the other is told, and answered with all that it said."""
    engine = ProcessEngine(StuckSpec(), RestartPolicy(delays_s=(0.0,), doubt_s=2.0, hang_s=6.0))
    async with (
        serving(engine, Settings()) as served,
        connect(f"{served.url}/v1/realtime", max_queue=None) as attacker,
        connect(f"{served.url}/v1/realtime", max_queue=None) as victim,
    ):
        states = _states(served, monkeypatch)
        assert await _ask(victim, "hello") == "you said hello"
        await _type(attacker, "hang")
        error = (await _until(victim, "error"))["error"]
        assert (error["type"], error["code"]) == ("server_error", "engine_failed")
        with pytest.raises(ConnectionClosedError) as closed:
            await _until(attacker)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1011
        assert await _ask(victim, "again") == "you said hello, again"
        # On a busy machine it may have been in doubt, and heard, before.
        assert states[-3:] == [LinkState.SILENT, LinkState.RESTARTING, LinkState.READY]


async def test_nobody_is_let_in_while_the_engine_may_hang() -> None:
    """And who is in stays in: it may be heard again."""
    policy = RestartPolicy(delays_s=(), doubt_s=0.5, hang_s=3_600.0)
    async with (
        serving(ProcessEngine(StuckSpec(), policy), Settings()) as served,
        connect(f"{served.url}/v1/realtime") as client,
    ):
        await _until(client, "session.created")
        await _type(client, "hang")
        async with asyncio.timeout(TIMEOUT_S):
            while (await served.get("/readyz"))[0] == 200:
                pass
        assert (await served.get("/readyz"))[1]["status"] == "silent"
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{served.url}/v1/realtime").__aenter__()
        assert refused.value.response.status_code == 503
        assert (await served.get("/readyz"))[1]["sessions"] == 1
