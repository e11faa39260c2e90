"""The handshake: who is let in, and what the session begins with."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient, WebSocketDenialResponse
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from server.config.models import ModelSettings
from server.config.server import ServerSettings
from server.config.settings import Settings
from server.transport import websocket
from tests.server import oracle
from tests.server.fakes import EchoEngine
from tests.server.serving import Served, serving
from tests.server.sounds import base64_pcm, voice
from tests.server.transport.asking import new_app

_TIMEOUT_S = 20.0
_KEY = "sk-sixteen-or-more-1"
_VOICES = {"alloy": "amber", "echo": "birch"}


@asynccontextmanager
async def _serving(**server: Any) -> AsyncIterator[Served]:
    model = ModelSettings(aliases=server.pop("aliases", ()))
    keys = {"api_keys": (_KEY,), **server}
    settings = Settings(server=ServerSettings(**keys), model=model, voices=_VOICES)
    async with serving(EchoEngine(), settings) as served:
        yield served


async def _mint(served: Served, path: str, body: dict[str, Any]) -> str:
    """Make an ephemeral key."""
    url = f"{served.url.replace('ws', 'http', 1)}/v1/realtime/{path}"
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {_KEY}"}) as client:
        answer = (await client.post(url, json=body)).json()
    value: str = answer["value"] if path == "client_secrets" else answer["client_secret"]["value"]
    return value


def _connect(served: Served, query: str, key: str = _KEY, **options: Any) -> connect:
    headers = {"authorization": f"Bearer {key}", **options.pop("headers", {})}
    return connect(f"{served.url}/v1/realtime{query}", additional_headers=headers, **options)


async def _next(client: ClientConnection, *, is_beta: bool = False) -> dict[str, Any]:
    async with asyncio.timeout(_TIMEOUT_S):
        event: dict[str, Any] = json.loads(await client.recv())
    oracle.check(event, is_beta=is_beta)
    return event


async def _ask(
    client: ClientConnection, event: dict[str, Any], *, is_beta: bool = False
) -> dict[str, Any]:
    await client.send(json.dumps(event))
    return await _next(client, is_beta=is_beta)


async def _close_of(client: ClientConnection) -> tuple[int | None, str | None]:
    with pytest.raises(ConnectionClosed):
        async with asyncio.timeout(_TIMEOUT_S):
            await client.recv()
    return client.close_code, client.close_reason


async def test_a_key_starts_sessions_with_what_it_is_bound_to() -> None:
    """More than one, each with an id of its own; and what it begins with can still be changed."""
    session = {"type": "realtime", "model": "starter", "audio": {"output": {"voice": "echo"}}}
    async with _serving() as served:
        key = await _mint(served, "client_secrets", {"session": session})
        ids = set()
        for _ in range(2):
            async with _connect(served, "?model=other", key) as client:
                created = (await _next(client))["session"]
                assert (created["model"], created["audio"]["output"]["voice"]) == (
                    "starter",
                    "echo",
                )
                assert created["expires_at"] > 0
                ids.add(created["id"])
                patch = {"type": "realtime", "audio": {"output": {"voice": "alloy"}}}
                updated = await _ask(client, {"type": "session.update", "session": patch})
                assert updated["session"]["audio"]["output"]["voice"] == "alloy"
        assert len(ids) == 2


async def test_the_address_names_the_model_where_the_key_does_not() -> None:
    """As some callers do; only its aliases are said back."""
    async with _serving(aliases=("other",)) as served:
        key = await _mint(served, "client_secrets", {})
        for query, model in (("?model=other", "other"), ("?model=o", "starter"), ("", "starter")):
            async with _connect(served, query, key) as client:
                assert (await _next(client))["session"]["model"] == model


async def test_a_key_of_beta_starts_what_it_was_made_for() -> None:
    """By subprotocol, as browsers do."""
    async with _serving() as served:
        key = await _mint(served, "sessions", {"voice": "echo", "temperature": 1.0})
        offered = ["realtime", f"openai-insecure-api-key.{key}", "openai-beta.realtime-v1"]
        address = f"{served.url}/v1/realtime?model=m"
        async with connect(address, subprotocols=offered) as client:  # type: ignore[arg-type]  # a NewType of str
            assert client.subprotocol == "realtime"
            session = (await _next(client, is_beta=True))["session"]
            assert (session["voice"], session["temperature"]) == ("echo", 1.0)


@pytest.mark.parametrize("bound", [True, False])
async def test_transcription_sessions(bound: bool) -> None:
    """By the address or by the key; only their own updates, and no responses."""
    async with _serving() as served:
        session = {"type": "transcription"}
        key = await _mint(served, "client_secrets", {"session": session}) if bound else _KEY
        async with _connect(served, "" if bound else "?intent=transcription", key) as client:
            created = await _next(client)
            assert created["type"] == "session.created"
            assert created["session"]["type"] == "transcription"
            patch = {"type": "transcription", "audio": {"input": {"turn_detection": None}}}
            updated = await _ask(client, {"type": "session.update", "session": patch})
            assert updated["session"]["audio"]["input"]["turn_detection"] is None
            patch = {"type": "realtime"}
            refused = await _ask(client, {"type": "session.update", "session": patch})
            assert refused["error"]["message"] == (
                "Passing a realtime session update event to a transcription session is not allowed."
            )
            for kind in ("response.create", "response.cancel"):
                error = (await _ask(client, {"type": kind, "event_id": "e"}))["error"]
                assert (error["type"], error["event_id"]) == ("invalid_request_error", "e")
                assert kind in error["message"]


async def test_transcription_sessions_in_beta() -> None:
    """With events of their own names."""
    async with _serving() as served:
        headers = {"openai-beta": "realtime=v1"}
        async with _connect(served, "?intent=transcription", headers=headers) as client:
            created = await _next(client, is_beta=True)
            assert created["type"] == "transcription_session.created"
            patch = {"input_audio_format": "g711_ulaw"}
            event = {"type": "transcription_session.update", "session": patch}
            updated = await _ask(client, event, is_beta=True)
            assert updated["type"] == "transcription_session.updated"
            assert updated["session"]["input_audio_format"] == "g711_ulaw"


async def test_a_first_update_shows_the_shape() -> None:
    """Of a client that did not say it, on the wire."""
    async with _serving() as served, _connect(served, "?model=m") as client:
        assert "audio" in (await _next(client))["session"]
        event = {"type": "session.update", "session": {"voice": "echo"}}
        assert (await _ask(client, event, is_beta=True))["session"]["voice"] == "echo"


async def test_pages_can_read_that_their_key_is_wrong() -> None:
    """A refused upgrade tells a page nothing, so they get an event and a close code."""
    async with _serving() as served:
        for options in (
            {"subprotocols": ["realtime", "openai-insecure-api-key.ek_1"]},
            {"origin": "https://example.org"},
        ):
            async with connect(f"{served.url}/v1/realtime?model=m", **options) as client:
                error = (await _next(client))["error"]
                assert (error["type"], error["code"]) == (
                    "invalid_request_error",
                    "invalid_api_key",
                )
                expected = (3000, "invalid_request_error.invalid_api_key")
                assert await _close_of(client) == expected


@pytest.mark.parametrize(
    ("query", "code", "message"),
    [
        ("?intent=", "invalid_intent", "Invalid intent "),
        ("?intent=x", "invalid_intent", "Invalid intent x"),
    ],
)
async def test_addresses_that_ask_for_what_there_is_not(
    query: str, code: str, message: str
) -> None:
    """One error that says why, then close 4000 with the same code."""
    async with _serving() as served, _connect(served, query) as client:
        error = (await _next(client))["error"]
        assert error["code"] == code
        assert error["message"].startswith(message)
        assert await _close_of(client) == (4000, f"invalid_request_error.{code}")


async def test_an_intent_that_is_not_the_keys() -> None:
    """A key for conversations does not become one for transcription."""
    async with _serving() as served:
        key = await _mint(served, "client_secrets", {})
        async with _connect(served, "?intent=transcription", key) as client:
            assert (await _next(client))["error"]["code"] == "invalid_intent"
            assert (await _close_of(client))[0] == 4000


async def test_too_many_functions_are_refused() -> None:
    """In a session and in a response; the limit is the operator's."""
    tools = [{"type": "function", "name": name} for name in "ab"]
    async with _serving(max_tools=1) as served, _connect(served, "?model=m") as client:
        await _next(client)
        session = {"type": "realtime", "tools": tools}
        refused = await _ask(client, {"type": "session.update", "session": session})
        assert refused["error"]["param"] == "session.tools"
        refused = await _ask(client, {"type": "response.create", "response": {"tools": tools}})
        assert refused["error"]["param"] == "response.tools"


async def test_an_unknown_ephemeral_key_is_refused_without_api_keys_too() -> None:
    """What it was bound to would silently not apply."""
    async with _serving(api_keys=()) as served:
        with pytest.raises(InvalidStatus) as refused:
            await _connect(served, "?model=m", "ek_1")
        assert refused.value.response.status_code == 401
        async with _connect(served, "?model=m", "any") as client:
            assert (await _next(client))["type"] == "session.created"


def test_nobody_is_let_in_before_the_engine_is_warm() -> None:
    """A refused upgrade that says to come again, as a load balancer understands it."""
    client = TestClient(new_app(), base_url="http://localhost")
    with (
        pytest.raises(WebSocketDenialResponse) as refused,
        client.websocket_connect("ws://localhost/v1/realtime?model=m"),
    ):
        pass
    assert refused.value.status_code == 503
    assert refused.value.json()["error"]["type"] == "server_error"


@pytest.mark.parametrize("is_beta", [False, True])
async def test_a_transcription_session_transcribes(is_beta: bool) -> None:
    """Audio in, words out, and never a response; in both shapes."""
    update: dict[str, Any] = {
        "type": "session.update",
        "session": {"type": "transcription", "audio": {"input": {"turn_detection": None}}},
    }
    if is_beta:
        update = {"type": "transcription_session.update", "session": {"turn_detection": None}}
    headers = {"openai-beta": "realtime=v1"} if is_beta else {}
    async with (
        _serving() as served,
        _connect(served, "?intent=transcription", headers=headers) as client,
    ):
        await _next(client, is_beta=is_beta)
        await _ask(client, update, is_beta=is_beta)
        audio = base64_pcm(voice(1.0, 24_000))
        await client.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
        await client.send('{"type": "input_audio_buffer.commit"}')
        events: list[dict[str, Any]] = []
        while not events or not events[-1]["type"].endswith("transcription.completed"):
            events.append(await _next(client, is_beta=is_beta))
        kinds = [event["type"] for event in events]
        added = ["created"] if is_beta else ["added", "done"]
        assert kinds[: 1 + len(added)] == [
            "input_audio_buffer.committed",
            *(f"conversation.item.{name}" for name in added),
        ]
        assert events[-1]["transcript"]
        assert not any(kind.startswith("response.") for kind in kinds)


async def test_a_key_opens_so_many_sessions_and_is_revoked() -> None:
    """One at a time unless asked for; when it is revoked its sessions end, and it opens none."""
    async with _serving() as served:
        key = await _mint(served, "client_secrets", {})
        async with _connect(served, "", key) as client:
            await _next(client)
            with pytest.raises(InvalidStatus) as refused:
                await _connect(served, "", key)
            assert refused.value.response.status_code == 429
            url = f"{served.url.replace('ws', 'http', 1)}/v1/realtime/client_secrets/revoke"
            async with httpx.AsyncClient(headers={"authorization": f"Bearer {_KEY}"}) as backend:
                assert (await backend.post(url, json={"value": key})).status_code == 200
                assert (await backend.post(url, json={"value": key})).status_code == 404
            assert (await _next(client))["error"]["code"] == "invalid_api_key"
            assert (await _close_of(client))[0] == 3000
        with pytest.raises(InvalidStatus):
            await _connect(served, "", key)


async def test_a_key_that_is_revoked_while_its_session_is_let_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is found, and gone before the session begins: there is no session, and no place taken."""
    initial_config = websocket._initial_config

    def revoking(socket: Any, chosen: Any) -> Any:
        assert socket.app.state.gateway.keys.revoke(chosen.key.value)
        return initial_config(socket, chosen)

    monkeypatch.setattr(websocket, "_initial_config", revoking)
    async with _serving() as served:
        key = await _mint(served, "client_secrets", {})
        async with _connect(served, "", key) as client:
            assert (await _next(client))["error"]["code"] == "invalid_api_key"
            assert (await _close_of(client))[0] == 3000
        assert (await served.get("/readyz"))[1]["sessions"] == 0


async def test_a_bound_key_keeps_instructions_and_functions() -> None:
    """In the session, in responses, and in items; everything else can be changed."""
    async with _serving() as served:
        session = {"type": "realtime", "instructions": "be kind"}
        key = await _mint(served, "client_secrets", {"session": session, "bound": True})
        async with _connect(served, "", key) as client:
            await _next(client)
            told = {"role": "system", "type": "message", "content": []}
            for event in (
                {"type": "session.update", "session": {"type": "realtime", "instructions": "x"}},
                {"type": "session.update", "session": {"type": "realtime", "tools": [{}]}},
                {"type": "response.create", "response": {"instructions": "x"}},
                {"type": "response.create", "response": {"input": [told]}},
                {"type": "conversation.item.create", "item": told},
            ):
                assert (await _ask(client, event))["error"]["code"] == "session_bound"
            same = {**session, "audio": {"output": {"voice": "echo"}}}
            updated = await _ask(client, {"type": "session.update", "session": same})
            assert updated["session"]["audio"]["output"]["voice"] == "echo"
