"""Ephemeral keys are made over HTTP, with the exact shapes of the answers."""

import json
import time
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI
from openai.types.beta.realtime import SessionCreateResponse, TranscriptionSession
from openai.types.realtime import ClientSecretCreateResponse

from tests.server.transport.asking import KEY, asking, new_app

_SERVER_VAD = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 200,
}


def _expects(expires_at: int, ttl_s: int) -> None:
    assert expires_at - time.time() == pytest.approx(ttl_s, abs=60)


async def test_a_ga_secret_is_flat_beside_its_session() -> None:
    """Every key of the documented answer is there, and nothing else."""
    async with asking() as client:
        answer = await client.post("/v1/realtime/client_secrets", json={})
    assert answer.status_code == 200
    body = answer.json()
    ClientSecretCreateResponse.model_validate(body, strict=True)
    assert set(body) == {"value", "expires_at", "session"}
    assert body["value"].startswith("ek_")
    _expects(body["expires_at"], 600)
    session = body["session"]
    assert session.pop("id").startswith("sess_")
    assert session == {
        "type": "realtime",
        "object": "realtime.session",
        "model": "starter",
        "output_modalities": ["audio"],
        "instructions": "",
        "tools": [],
        "tool_choice": "auto",
        "max_output_tokens": "inf",
        "tracing": None,
        "truncation": "auto",
        "prompt": None,
        "expires_at": 0,
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "transcription": None,
                "noise_reduction": None,
                "turn_detection": {
                    **_SERVER_VAD,
                    "idle_timeout_ms": None,
                    "create_response": True,
                    "interrupt_response": True,
                },
            },
            "output": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "voice": "alloy",
                "speed": 1.0,
            },
        },
        "include": None,
    }


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("client_secrets", {"session": None, "expires_after": None}),
        ("sessions", {"client_secret": None}),
        ("transcription_sessions", {"client_secret": None}),
    ],
)
async def test_null_is_nothing_asked_for(path: str, body: dict[str, None]) -> None:
    """Optional parts of a request may be null as well as absent."""
    async with asking() as client:
        answer = await client.post(f"/v1/realtime/{path}", json=body)
    assert answer.status_code == 200, answer.text


async def test_stock_clients_make_keys() -> None:
    """With the `openai` package, in both shapes."""
    transport = httpx.ASGITransport(new_app(api_keys=(KEY,)))
    async with (
        httpx.AsyncClient(transport=transport) as http_client,
        AsyncOpenAI(api_key=KEY, base_url="http://localhost/v1", http_client=http_client) as client,  # type: ignore[arg-type]  # two copies of httpx
    ):
        secret = await client.realtime.client_secrets.create(
            expires_after={"anchor": "created_at", "seconds": 7200},
            session={"type": "transcription", "audio": {"input": {"turn_detection": None}}},
        )
        _expects(secret.expires_at, 7200)
        assert secret.session.type == "transcription"
        session = await client.beta.realtime.sessions.create(voice="echo", temperature=0.7)
        assert (session.voice, session.temperature) == ("echo", 0.7)
        transcription = await client.beta.realtime.transcription_sessions.create(
            input_audio_transcription={"model": "whisper-1"}
        )
        assert transcription.client_secret.value.startswith("ek_")


async def test_a_beta_session_carries_its_secret() -> None:
    """The session as it would be echoed, with a key of about a minute."""
    async with asking() as client:
        answer = await client.post(
            "/v1/realtime/sessions",
            json={"model": "gpt-4o-realtime-preview", "voice": "echo", "modalities": ["text"]},
        )
    body = answer.json()
    SessionCreateResponse.model_validate(body, strict=True)
    assert (body["object"], body["model"]) == ("realtime.session", "starter")
    assert (body["voice"], body["modalities"], body["expires_at"]) == ("echo", ["text"], 0)
    assert set(body["client_secret"]) == {"value", "expires_at"}
    _expects(body["client_secret"]["expires_at"], 60)


async def test_a_beta_transcription_session_carries_its_secret() -> None:
    """It has exactly the documented keys."""
    async with asking() as client:
        answer = await client.post("/v1/realtime/transcription_sessions", content=b"")
    body = answer.json()
    TranscriptionSession.model_validate(body, strict=True)
    assert body.pop("id").startswith("sess_")
    _expects(body.pop("client_secret")["expires_at"], 60)
    assert body == {
        "object": "realtime.transcription_session",
        "expires_at": 0,
        "input_audio_format": "pcm16",
        "input_audio_transcription": None,
        "turn_detection": _SERVER_VAD,
        "input_audio_noise_reduction": None,
        "include": None,
    }


@pytest.mark.parametrize(
    ("path", "body", "code", "param"),
    [
        ("client_secrets", {"foo": 1}, "unknown_parameter", "foo"),
        ("client_secrets", {"session": 1}, "invalid_type", "session"),
        ("client_secrets", {"session": {}}, "missing_required_parameter", "session.type"),
        ("client_secrets", {"session": {"type": "x"}}, "invalid_value", "session.type"),
        (
            "client_secrets",
            {"session": {"type": "realtime", "voice": "echo"}},
            "unknown_parameter",
            "session.voice",
        ),
        (
            "client_secrets",
            {"session": {"type": "realtime", "audio": {"output": {"voice": "x"}}}},
            "invalid_value",
            "session.audio.output.voice",
        ),
        (
            "client_secrets",
            {"expires_after": {"anchor": "created_at", "seconds": 9}},
            "integer_below_min_value",
            "expires_after.seconds",
        ),
        (
            "client_secrets",
            {"expires_after": {"seconds": 7201}},
            "integer_above_max_value",
            "expires_after.seconds",
        ),
        (
            "client_secrets",
            {"expires_after": {"anchor": "x"}},
            "invalid_value",
            "expires_after.anchor",
        ),
        ("sessions", {"voice": "x"}, "invalid_value", "voice"),
        ("sessions", {"temperature": 0.3}, "decimal_below_min_value", "temperature"),
        ("sessions", {"audio": {}}, "unknown_parameter", "audio"),
        (
            "sessions",
            {"client_secret": {"value": "ek_"}},
            "unknown_parameter",
            "client_secret.value",
        ),
        (
            "transcription_sessions",
            {"turn_detection": {"type": "server_vad", "threshold": 2}},
            "decimal_above_max_value",
            "turn_detection.threshold",
        ),
        ("transcription_sessions", {"voice": "echo"}, "unknown_parameter", "voice"),
    ],
)
async def test_what_is_refused(path: str, body: Any, code: str, param: str) -> None:
    """As in a session update, under the names that the body has."""
    async with asking() as client:
        answer = await client.post(f"/v1/realtime/{path}", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (400, "invalid_request_error")
    assert (error["code"], error["param"]) == (code, param)
    assert "'session." not in error["message"] or path == "client_secrets"


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe", b'{"a":NaN}'])
async def test_a_body_that_is_no_object(content: bytes) -> None:
    """Is refused in the API's envelope like everything else."""
    async with asking() as client:
        answer = await client.post("/v1/realtime/client_secrets", content=content)
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


async def test_a_body_that_is_too_large() -> None:
    """It is not read to its end."""
    async with asking(max_body_bytes=1_024) as client:
        answer = await client.post("/v1/realtime/client_secrets", content=b" " * 1_025)
    assert answer.status_code == 413
    assert "1024 bytes" in answer.json()["error"]["message"]


@pytest.mark.parametrize("key", [None, "sk-bad", "ek_1"])
async def test_only_an_api_key_makes_keys(key: str | None) -> None:
    """An ephemeral one would never have to expire."""
    for path in ("client_secrets", "sessions", "transcription_sessions"):
        async with asking(key=key) as client:
            answer = await client.post(f"/v1/realtime/{path}", json={})
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_api_key"


async def test_too_many_keys_are_refused() -> None:
    """So a loop in a backend costs no memory here."""
    async with asking(max_ephemeral_keys=1) as client:
        statuses = [
            (await client.post("/v1/realtime/client_secrets", json={})).status_code
            for _ in range(2)
        ]
        answer = await client.post("/v1/realtime/sessions", json={})
    assert statuses == [200, 429]
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"
    assert answer.json()["error"]["type"] == "rate_limit_error"


async def test_other_sites_pages_make_none_without_keys() -> None:
    """A simple request comes without a preflight, so it is refused by its origin."""
    async with asking(key=None, api_keys=()) as client:
        for origin, status in (("https://example.org", 403), ("http://localhost:3000", 200)):
            answer = await client.post(
                "/v1/realtime/client_secrets", content=b"{}", headers={"origin": origin}
            )
            assert answer.status_code == status


@pytest.mark.parametrize("path", ["client_secrets", "sessions"])
@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"required": "ы" * 60}, "invalid_function_parameters"),
        ({"properties": {"a": {"multipleOf": 100_000_007}}}, "invalid_function_parameters"),
        ({"properties": {"a": {"const": 1 << 70}}}, "invalid_function_parameters"),
        ({"properties": {"\ud800": {}}}, "invalid_value"),
    ],
)
async def test_no_schema_breaks_the_server(path: str, parameters: Any, code: str) -> None:
    """What the compiler does not survive is refused as anything else is."""
    session = {"tools": [{"type": "function", "name": "f", "parameters": parameters}]}
    body = {"session": {"type": "realtime", **session}} if path == "client_secrets" else session
    async with asking() as client:
        answer = await client.post(f"/v1/realtime/{path}", content=json.dumps(body))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
