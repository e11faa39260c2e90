"""What is where, and what those are told who go elsewhere."""

import json
from typing import Any

import pytest
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from server.config.models import ModelSettings
from server.config.server import ServerSettings
from server.config.settings import Settings
from server.protocol.server_events import InputTranscriptionDelta
from server.transport.websocket import asked_dialect
from tests.server.fakes import EchoEngine
from tests.server.serving import serving
from tests.server.transport.asking import KEY, asking


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/realtime", 426, "websocket_required"),
        ("POST", "/v1/realtime", 404, "webrtc_not_supported"),
        ("POST", "/v1/realtime/calls", 404, "webrtc_not_supported"),
        ("POST", "/v1/chat/completions", 404, None),
        ("POST", "/nothing", 404, None),
        ("DELETE", "/v1/models", 405, "method_not_supported"),
    ],
)
async def test_refusals_say_where_to_go(
    method: str, path: str, status: int, code: str | None
) -> None:
    """In the API's envelope; but first to those with a right key only."""
    async with asking() as client:
        answer = await client.request(method, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        if code in {"webrtc_not_supported", "websocket_required"}:
            assert "ws://localhost/v1/realtime" in answer.json()["error"]["message"]
    async with asking(key=None) as client:
        assert (await client.request(method, path)).status_code == 401


async def test_a_websocket_for_nothing_gets_404_and_says_so() -> None:
    """Or 401, where its key is wrong."""
    settings = Settings(server=ServerSettings(api_keys=(KEY,)))
    async with serving(EchoEngine(), settings) as served:
        for key, status in ((KEY, 404), ("wrong", 401)):
            with pytest.raises(InvalidStatus) as refused:
                await connect(
                    f"{served.url}/v1/nothing",
                    additional_headers={"authorization": f"Bearer {key}"},
                )
            assert refused.value.response.status_code == status
            assert json.loads(refused.value.response.body or b"")["error"]["message"]


@pytest.mark.parametrize(
    ("address", "is_beta"),
    [
        ("/openai/realtime?api-version=2025-04-01-preview&deployment=mine&api-key=KEY", True),
        ("/openai/realtime?api-version=2025-08-28&deployment=mine&api-key=KEY", False),
        ("/openai/v1/realtime?model=mine&api-key=KEY", False),
    ],
)
async def test_azures_addresses(address: str, is_beta: bool) -> None:
    """A preview is beta from its first event; the deployment is the model; the key may be there."""
    settings = Settings(
        server=ServerSettings(api_keys=(KEY,)), model=ModelSettings(aliases=("mine",))
    )
    async with serving(EchoEngine(), settings) as served:
        async with connect(served.url + address.replace("KEY", KEY)) as client:
            session = json.loads(await client.recv())["session"]
            assert ("modalities" in session, session["model"]) == (is_beta, "mine")
        with pytest.raises(InvalidStatus):
            await connect(f"{served.url}/v1/realtime?api-key={KEY}")


async def test_other_names_may_be_refused() -> None:
    """By configuration; aliases are models of their own name."""
    model = ModelSettings(aliases=("mine",), other_names="refuse")
    async with serving(EchoEngine(), Settings(model=model)) as served:
        assert (await served.get("/v1/models/mine"))[1]["id"] == "mine"
        assert (await served.get("/v1/models/other"))[0] == 404
        with pytest.raises(InvalidStatus) as refused:
            async with connect(f"{served.url}/v1/realtime?model=other"):
                pass
        assert refused.value.response.status_code == 404


async def test_the_openapi_description_is_there_where_wanted() -> None:
    """Without keys, or where it is asked for."""
    for server, status in (({"api_keys": ()}, 200), ({}, 404), ({"openapi": True}, 200)):
        async with asking(**server) as client:
            answer = await client.get("/openapi.json")
            assert answer.status_code == status
    assert "/v1/realtime/client_secrets" in answer.json()["paths"]


async def test_the_playground_is_guarded() -> None:
    """Nothing but its own files runs in it; of those, other sites' pages may use the client."""
    shared = {"/parley-client.js", "/client/tap-worklet.js"}
    async with asking(key=None) as client:
        for path in ("/", "/playground/main.js", "/playground.css", *shared):
            answer = await client.get(path)
            assert answer.status_code == 200
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"
            whose = "cross-origin" if path in shared else "same-origin"
            assert answer.headers["cross-origin-resource-policy"] == whose
        for path in ("/client", "/playground/nothing.js"):
            assert (await client.get(path)).status_code in {401, 404}


async def test_models_name_their_voices() -> None:
    """What the API does not have, and a page that offers voices needs."""
    async with asking() as client:
        (model,) = (await client.get("/v1/models")).json()["data"]
    assert model["voices"] == ["alloy", "echo", "amber", "birch"]


async def test_a_malformed_origin_is_refused() -> None:
    """As another site's."""
    async with asking(key=None, api_keys=()) as client:
        answer = await client.post("/v1/realtime/client_secrets", headers={"origin": "http://["})
    assert answer.status_code == 403


@pytest.mark.parametrize(("version", "has_deltas"), [("2024-10-01", False), ("2025-04-01", True)])
def test_an_older_preview_has_no_transcript_deltas(version: str, has_deltas: bool) -> None:
    """Its clients end a connection at an event that they do not know."""
    query = f"api-version={version}-preview&deployment=mine".encode()
    scope = {"type": "websocket", "path": "/openai/realtime", "query_string": query, "headers": []}
    written = asked_dialect(WebSocket(scope, _nothing, _nothing)).write(
        InputTranscriptionDelta("item_1", 0, "my"), "event_1"
    )
    assert (written is not None) is has_deltas


async def _nothing(*_: object) -> Any:
    raise AssertionError("nothing is received or sent")
