"""What browsers are told of answers, which pages may ask, and by which names."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from server.config.server import ServerSettings
from server.config.settings import Settings
from server.transport.auth import is_welcome_origin
from server.transport.certificate import self_signed
from server.transport.door import is_known_host
from server.transport.headers import SAFE
from tests.server.fakes import EchoEngine
from tests.server.serving import Served, serving
from tests.server.transport.asking import KEY, asking


@pytest.mark.parametrize(
    ("path", "status"),
    [("/livez", 200), ("/v1/models", 200), ("/metrics", 200), ("/v1/nothing", 404)],
)
async def test_every_answer_is_safe_in_a_browser(path: str, status: int) -> None:
    """It is not run, framed, guessed at or kept."""
    async with asking() as client:
        answer = await client.get(path)
    assert answer.status_code == status
    assert {name: answer.headers.get(name) for name in SAFE} == dict(SAFE)


async def test_the_playground_has_its_own() -> None:
    """It runs scripts, its own only, and may be kept for as long as it is the same."""
    async with asking() as client:
        answer = await client.get("/")
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-frame-options"] == "DENY"


async def test_refused_websockets_are_safe_too() -> None:
    """They are answered over HTTP."""
    async with serving(EchoEngine(), Settings(server=ServerSettings(api_keys=(KEY,)))) as served:
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{served.url}/v1/realtime")
    assert refused.value.response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("voice.example.com", "max-age=86400"),
        ("voice.example.com:8443", "max-age=86400"),
        ("127.0.0.1:8443", None),
        ("localhost:8443", None),
        ("[::1]", None),
        ("203.0.113.7", None),
    ],
)
async def test_tls_is_said_to_last(tmp_path: Path, host: str, said: str | None) -> None:
    """To who came by TLS to a name that is one server's; never for this machine's names."""
    certificate, key = self_signed(tmp_path, "127.0.0.1")
    server = ServerSettings(api_keys=(KEY,), tls_certificate=certificate, tls_key=key)
    async with serving(EchoEngine(), Settings(server=server)) as served:
        head = await _raw(served, f"GET /livez HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    lines = dict(line.split(": ", 1) for line in head.split("\r\n\r\n")[0].split("\r\n")[1:])
    assert lines.get("strict-transport-security") == said


async def test_without_tls_it_is_not_said() -> None:
    """Whatever the name."""
    async with asking() as client:
        answer = await client.get("/livez", headers={"host": "voice.example.com"})
    assert "strict-transport-security" not in answer.headers


async def _raw(served: Served, request: bytes) -> str:
    """Send bytes, and return what comes until the server closes, or an answer's head is whole."""
    import ssl  # noqa: PLC0415

    trust = ssl._create_unverified_context() if served.is_secure else None  # noqa: S323
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port, ssl=trust)
    try:
        writer.write(request)
        async with asyncio.timeout(30):
            return (await reader.readuntil(b"\r\n\r\n")).decode()
    finally:
        writer.transport.abort()


PAGE, OTHER, HOST = "https://app.example.com", "https://evil.example", "voice.example.com"


@pytest.mark.parametrize(
    ("origin", "allowed", "has_keys", "is_welcome"),
    [
        (None, (PAGE,), True, True),  # no page
        (OTHER, (), True, True),  # any page that has a key
        (PAGE, (PAGE,), True, True),
        (OTHER, (PAGE,), True, False),
        (f"https://{HOST}", (PAGE,), True, True),  # the playground
        ("http://localhost:3000", (PAGE,), True, False),
        ("http://localhost:3000", (PAGE,), False, True),
        ("http://localhost:3000", (), False, True),
        (PAGE, (PAGE,), False, True),
        (OTHER, (), False, False),
        ("null", (), False, False),
        ("null", (PAGE,), True, False),
        ("http://[::1", (PAGE,), True, False),
    ],
)
def test_which_pages_are_welcome(
    origin: str | None, allowed: tuple[str, ...], has_keys: bool, is_welcome: bool
) -> None:
    """A list holds with keys and without."""
    assert is_welcome_origin(origin, HOST, allowed, has_keys=has_keys) is is_welcome


async def test_a_page_that_is_not_listed_gets_nothing() -> None:
    """Neither a key nor a session, and its script may not read why."""
    server: dict[str, Any] = {"allowed_origins": (PAGE,)}
    async with asking(**server) as client:
        for origin, status in ((PAGE, 200), (OTHER, 403)):
            answer = await client.post(
                "/v1/realtime/client_secrets", json={}, headers={"origin": origin}
            )
            assert answer.status_code == status
            allowed = answer.headers.get("access-control-allow-origin")
            assert allowed == (PAGE if origin == PAGE else None)
    settings = Settings(server=ServerSettings(api_keys=(KEY,), **server))
    headers = {"authorization": f"Bearer {KEY}"}
    async with serving(EchoEngine(), settings) as served:
        url = f"{served.url}/v1/realtime"
        async with connect(url, additional_headers=headers, origin=PAGE) as client:  # type: ignore[arg-type]  # a NewType of str
            assert json.loads(await client.recv())["type"] == "session.created"
        with pytest.raises(InvalidStatus) as refused:
            await connect(url, additional_headers=headers, origin=OTHER)  # type: ignore[arg-type]  # the same
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize(
    ("host", "is_known"),
    [
        ("voice.example.com", True),
        ("VOICE.example.com:8000", True),
        ("a.b.example.org", True),
        ("example.org", False),
        ("evilexample.org", False),
        ("localhost:8000", True),
        ("[::1]:8000", True),
        ("other.example.com", False),
        ("voice.example.com@evil.example", False),
        (None, True),
    ],
)
def test_names_that_the_server_is_known_by(host: str | None, is_known: bool) -> None:
    """Listed, below a listed one, or of this machine."""
    assert is_known_host(host, ("voice.example.com", "*.example.org")) is is_known


async def test_a_listed_name_is_the_only_one() -> None:
    """With keys as well; who watches over servers asks by any."""
    async with asking(allowed_hosts=("voice.example.com",)) as client:
        for host, path, status in (
            ("voice.example.com", "/v1/models", 200),
            ("evil.example", "/v1/models", 403),
            ("10.0.0.7:8000", "/livez", 200),
            ("10.0.0.7:8000", "/metrics", 200),
        ):
            answer = await client.get(path, headers={"host": host})
            assert answer.status_code == status, (host, path)
    async with asking(key=None, api_keys=(), allowed_hosts=("voice.example.com",)) as client:
        answer = await client.get("/v1/models", headers={"host": "voice.example.com"})
        assert answer.status_code == 200, "a proxy on this machine may pass a name on"
        answer = await client.get("/metrics", headers={"host": "10.0.0.7:8000"})
        assert answer.status_code == 403, "without a key a page could read them"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("allowed_origins", "app.example.com"),
        ("allowed_origins", "https://app.example.com/"),
        ("allowed_hosts", "https://voice.example.com"),
        ("allowed_hosts", "voice.example.com:8000"),
        ("allowed_hosts", "*"),
        ("max_head_bytes", 100),
    ],
)
def test_what_would_never_fit_is_refused(setting: str, value: object) -> None:
    """A list with a mistake in it would shut everybody out, or nobody."""
    is_list = setting.startswith("allowed")
    with pytest.raises(ValueError, match=setting):
        ServerSettings.model_validate({setting: [value] if is_list else value})


@pytest.mark.parametrize("size", [4_000, 40_000, 200_000])
async def test_a_head_has_a_size(size: int) -> None:
    """Also one that comes whole with one read; what fits is answered."""
    settings = Settings(server=ServerSettings(api_keys=(KEY,)))
    async with serving(EchoEngine(), settings) as served:
        lines = "".join(f"x-{n}: {'y' * 80}\r\n" for n in range(size // 90))
        request = f"GET /livez HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode()
        answer = await _raw(served, request)
    assert answer.startswith("HTTP/1.1 200" if size < 16_384 else "HTTP/1.1 400")


async def test_a_websocket_s_head_has_one_too() -> None:
    """It is read by the same reader."""
    settings = Settings(server=ServerSettings(api_keys=(KEY,)))
    async with serving(EchoEngine(), settings) as served:
        headers = {"authorization": f"Bearer {KEY}", "x-long": "y" * 100_000}
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{served.url}/v1/realtime", additional_headers=headers)
    assert refused.value.response.status_code == 400
