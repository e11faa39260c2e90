"""Health, models, failed requests and other sites' pages."""

import httpx
import pytest

from server.transport.websocket import PATHS
from tests.server.transport.asking import asking, new_app


async def test_models() -> None:
    """The one that is served, in a list and by its name."""
    async with asking() as client:
        (listed,) = (await client.get("/v1/models")).json()["data"]
        assert (listed["id"], listed["object"]) == ("starter", "model")
        assert (await client.get("/v1/models/starter")).json() == listed
        answer = await client.get("/v1/models/gpt/x")
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "model_not_found"
    async with asking(key=None) as client:
        for path in ("/v1/models", "/v1/models/starter"):
            assert (await client.get(path)).status_code == 401


async def test_readiness_waits_for_the_engine() -> None:
    """The process is healthy before it can serve, and says so to anyone."""
    async with asking(key=None) as client:
        assert (await client.get("/healthz")).status_code == 200
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (503, "starting")


@pytest.mark.parametrize("path", PATHS)
async def test_every_base_address_makes_keys(path: str) -> None:
    """Those that clients connect to."""
    async with asking() as client:
        for name in ("client_secrets", "sessions", "transcription_sessions"):
            assert (await client.post(f"{path}/{name}", json={})).status_code == 200


async def test_failed_requests_have_the_envelope() -> None:
    """Whatever is wrong with them."""
    async with asking() as client:
        missing = await client.get("/v1/nothing")
        assert missing.status_code == 404
        assert missing.json()["error"] == {
            "message": "Invalid URL (GET /v1/nothing)",
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        }
        wrong = await client.get("/v1/realtime/client_secrets")
        assert wrong.status_code == 405
        assert wrong.json()["error"]["code"] == "method_not_supported"
        assert "POST" in wrong.headers["allow"]
        options = await client.options("/v1/realtime/client_secrets")
        assert (options.status_code, options.headers["allow"]) == (204, "OPTIONS, POST")


async def test_a_fault_of_ours_has_the_envelope_too() -> None:
    """And it says nothing about the inside."""
    app = new_app()
    del app.state.gateway
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.get("/v1/models")
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    assert "gateway" not in answer.text


@pytest.mark.parametrize(
    ("api_keys", "origin", "allowed"),
    [
        (("sk-sixteen-or-more-1",), "https://example.org", "*"),
        ((), "http://localhost:3000", "http://localhost:3000"),
        ((), "http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ((), "https://example.org", None),
        ((), "http://localhost.example.org", None),
        ((), "null", None),
    ],
)
async def test_which_pages_may_post(
    api_keys: tuple[str, ...], origin: str, allowed: str | None
) -> None:
    """Any page that has a key; where none is needed, only this machine's."""
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type",
    }
    async with asking(key=None, api_keys=api_keys) as client:
        for path in ("/v1/realtime/client_secrets", "/v1/realtime/sessions"):
            answer = await client.options(path, headers=headers)
            assert answer.headers.get("access-control-allow-origin") == allowed
            assert (answer.status_code == 200) is (allowed is not None)
            if allowed is not None:
                assert "POST" in answer.headers["access-control-allow-methods"]
                assert "authorization" in answer.headers["access-control-allow-headers"]


async def test_a_page_can_read_why_it_was_refused() -> None:
    """Errors carry the same permission as answers."""
    async with asking(key="sk-bad") as client:
        answer = await client.post(
            "/v1/realtime/client_secrets", json={}, headers={"origin": "https://example.org"}
        )
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, "*")
