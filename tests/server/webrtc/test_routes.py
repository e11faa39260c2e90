"""Signalling: what is answered to offers, good and bad."""

import asyncio
import base64
import hashlib
import hmac
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from model.scripted.script import parse_script
from server.app import create_app
from server.config.server import KeyLimits, NamedKey, ServerSettings
from server.config.settings import Settings
from server.config.webrtc import IceServer, WebRtcSettings
from server.transport.api_keys import hashed
from server.webrtc.network import Network
from server.webrtc.routes import _ice_server
from tests.fakes.scripted import scripted_engine
from tests.server.webrtc.offers import AUDIO, CHANNEL, FINGERPRINT, H264, VIDEO, offer

KEY = "sk-parley-of-a-test"
SHOP_KEY = "sk-parley-of-a-shop"
SHOP = NamedKey(name="shop", sha256=hashed(SHOP_KEY), limits=KeyLimits(max_sessions=1))


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """Speak to a server that takes calls and wants a key."""
    engine = scripted_engine(
        parse_script("reply: [say: hello]", "test"), max_sessions=3, ahead_ms=1_000
    )
    settings = Settings(
        server=ServerSettings(api_keys=(KEY,), keys=(SHOP,)),
        webrtc=WebRtcSettings(
            port=0,
            connect_timeout_s=60,
            ice_servers=(IceServer(urls=("turn:turn.example.com",), secret="s"),),  # noqa: S106
        ),
    )
    app = create_app(settings, {"starter": [engine]}, Network(settings.webrtc, "127.0.0.1", 0))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as asking,
    ):
        asking.headers["authorization"] = f"Bearer {KEY}"
        yield asking
    assert app.state.calls.num_calls == 0
    assert app.state.gateway.models.default.pool.num_sessions == 0


def _sections(answer: str) -> list[str]:
    return re.split(r"(?m)^(?=m=)", answer.replace("\r\n", "\n"))[1:]


async def _post(
    client: httpx.AsyncClient, sdp: str, path: str = "/v1/realtime/calls", **headers: str
) -> httpx.Response:
    headers = {"content-type": "application/sdp", **headers}
    return await client.post(path, content=sdp, headers=headers)


async def test_calls_count_for_their_api_key(client: httpx.AsyncClient) -> None:
    """From the offer on, also where an ephemeral key brings them, until they end."""
    made = await client.post(
        "/v1/realtime/client_secrets", json={}, headers={"authorization": f"Bearer {SHOP_KEY}"}
    )
    by_both = ({"authorization": f"Bearer {each}"} for each in (SHOP_KEY, made.json()["value"]))
    for by in by_both:
        begun = await _post(client, offer(), **by)
        assert begun.status_code == 201
        refused = await _post(client, offer(), authorization=f"Bearer {SHOP_KEY}")
        assert (refused.status_code, refused.json()["error"]["code"]) == (
            429,
            "rate_limit_exceeded",
        )
        assert "retry-after" in refused.headers
        await client.post(f"{begun.headers['location']}/hangup")
        await client._transport.app.state.calls.until_none()  # type: ignore[attr-defined]


async def test_an_offer_is_answered(client: httpx.AsyncClient) -> None:
    """With all that a browser needs, and a call's id that a page can read."""
    response = await _post(client, offer(), origin="https://example.com")
    assert response.status_code == 201
    assert response.headers["content-type"] == "application/sdp"
    assert re.fullmatch(r"/v1/realtime/calls/rtc_\w+_[0-9a-f]{32}", response.headers["location"])
    assert "location" in response.headers["access-control-expose-headers"].lower()
    answer = response.text
    assert "a=ice-lite" in answer
    assert "a=group:BUNDLE 0 1" in answer
    audio, channel = _sections(answer)
    for line in ("a=setup:passive", "a=sendrecv", "a=rtcp-mux", "a=rtpmap:111 opus/48000/2"):
        assert line in audio.splitlines()
    assert "useinbandfec=1" in audio
    assert "red" not in audio
    assert re.search(r"a=candidate:udp\d+ 1 udp \d+ 127\.0\.0\.1 \d+ typ host", audio)
    assert "a=end-of-candidates" in audio
    assert "a=candidate" not in channel
    assert "a=sctp-port:5000" in channel.splitlines()


@pytest.mark.parametrize(
    ("sections", "mids", "expected"),
    [
        (
            (AUDIO.replace("sendrecv", "recvonly"), CHANNEL),
            "0 1",
            ["audio 9 sendonly", "application 9"],
        ),
        (
            (AUDIO.replace("sendrecv", "sendonly"), CHANNEL),
            "0 1",
            ["audio 9 recvonly", "application 9"],
        ),
        (
            (AUDIO.replace("sendrecv", "inactive"), CHANNEL),
            "0 1",
            ["audio 9 inactive", "application 9"],
        ),
        ((AUDIO,), "0", ["audio 9 sendrecv"]),
        ((CHANNEL,), "1", ["application 9"]),
        (
            (AUDIO, CHANNEL, VIDEO),
            "0 1 2",
            ["audio 9 sendrecv", "application 9", "video 9 recvonly"],
        ),
        (
            (VIDEO, AUDIO, CHANNEL),
            "2 0 1",
            ["video 9 recvonly", "audio 9 sendrecv", "application 9"],
        ),
        # A second camera; one that shows nothing; codecs that are not read; a number of audio's.
        (
            (CHANNEL, VIDEO, VIDEO.replace("a=mid:2", "a=mid:3")),
            "1 2 3",
            ["application 9", "video 9 recvonly", "video 0 inactive"],
        ),
        (
            (CHANNEL, VIDEO.replace("sendrecv", "recvonly")),
            "1 2",
            ["application 9", "video 0 inactive"],
        ),
        ((CHANNEL, VIDEO.replace("VP8", "AV1")), "1 2", ["application 9", "video 0 inactive"]),
        (
            (AUDIO, VIDEO.replace("96", "111")),
            "0 2",
            ["audio 9 sendrecv", "video 0 inactive"],
        ),
        (
            (AUDIO, VIDEO.replace("a=rtcp-mux\n", "")),
            "0 2",
            ["audio 9 sendrecv", "video 0 inactive"],
        ),
        (
            (AUDIO, AUDIO.replace("a=mid:0", "a=mid:3"), CHANNEL),
            "0 3 1",
            ["audio 9 sendrecv", "audio 0 inactive", "application 9"],
        ),
        # Another codec only; a section of its own port beside the group.
        (
            (AUDIO.replace("opus/48000/2", "G722/8000"), CHANNEL),
            "0 1",
            ["audio 0 inactive", "application 9"],
        ),
        ((AUDIO, CHANNEL), "0", ["audio 9 sendrecv", "application 0 inactive"]),
        (
            (AUDIO.replace("actpass", "active"), CHANNEL),
            "0 1",
            ["audio 9 sendrecv", "application 9"],
        ),
        (
            (
                AUDIO + "a=candidate:1 1 udp 2122 192.0.2.7 9 typ host\na=end-of-candidates\n",
                CHANNEL,
            ),
            "0 1",
            ["audio 9 sendrecv", "application 9"],
        ),
        (
            (AUDIO + "a=candidate:1 1 udp 2122 0a-1b.local 9 typ host\n", CHANNEL),
            "0 1",
            ["audio 9 sendrecv", "application 9"],
        ),
    ],
)
async def test_what_is_taken_of_an_offer(
    client: httpx.AsyncClient, sections: tuple[str, ...], mids: str, expected: list[str]
) -> None:
    """Each section has its answer, in order; what cannot be done has port 0."""
    response = await _post(client, offer(*sections, mids=mids))
    assert response.status_code == 201, response.text
    found = []
    for section in _sections(response.text):
        kind, port = section.removeprefix("m=").split()[:2]
        direction = re.search(r"^a=(sendrecv|sendonly|recvonly|inactive)$", section, re.MULTILINE)
        found.append(f"{kind} {port} {direction[1]}" if direction else f"{kind} {port}")
    assert found == expected


def _h264(payload_type: int, mode: int) -> str:
    return H264.format(pt=payload_type, mode=mode)


@pytest.mark.parametrize(
    ("codecs", "payload_type", "line"),
    [
        (_h264(102, 1) + "a=rtpmap:96 VP8/90000\n", 96, "a=rtpmap:96 VP8/90000"),
        (_h264(97, 0) + _h264(102, 1), 102, "packetization-mode=1;profile-level-id=42e01f"),
        ("a=rtpmap:99 H265/90000\n" + _h264(97, 0), 97, "a=rtpmap:97 H264/90000"),
        ("a=rtpmap:99 H265/90000\n", 99, "a=rtpmap:99 H265/90000"),
    ],
)
async def test_codecs_of_a_camera(
    client: httpx.AsyncClient, codecs: str, payload_type: int, line: str
) -> None:
    """One is taken: what is cheapest to decode; key frames can be asked for."""
    video = VIDEO.replace("a=rtpmap:96 VP8/90000\n", codecs)
    video = video.replace("SAVPF 96", "SAVPF 96 97 99 102")
    response = await _post(client, offer(AUDIO, video, mids="0 2"))
    section = _sections(response.text)[1]
    assert section.splitlines()[0] == f"m=video 9 UDP/TLS/RTP/SAVPF {payload_type}"
    assert line in section
    assert f"a=rtcp-fb:{payload_type} nack pli" in section
    assert section.count("a=rtpmap") == 1


async def test_a_client_that_waits_for_our_handshake(client: httpx.AsyncClient) -> None:
    """Gets it."""
    response = await _post(client, offer(AUDIO.replace("actpass", "passive"), mids="0"))
    assert "a=setup:active" in response.text


@pytest.mark.parametrize(
    ("sdp", "words"),
    [
        ("", "no media section"),
        ("hello", "no media section"),
        (offer(AUDIO.replace("a=ice-ufrag:abcd\n", ""), mids="0"), "ice-ufrag"),
        (offer(re.sub(r"a=fingerprint.*\n", "", AUDIO), mids="0"), "fingerprint"),
        (offer(re.sub(r"sha-256", "md5", AUDIO), mids="0"), "fingerprint"),
        (offer(AUDIO.replace("a=setup:actpass\n", ""), mids="0"), "a=setup"),
        (offer(AUDIO.replace("a=rtcp-mux\n", ""), mids="0"), "rtcp-mux"),
        (offer(VIDEO, mids="2"), "neither an audio section"),
        (offer(AUDIO.replace("opus/48000/2", "PCMU/8000"), mids="0"), "neither an audio section"),
        (offer(AUDIO.replace("111 63", "x"), mids="0"), "cannot be read"),
        (offer(AUDIO + "a=fmtp:99 x=1\n", mids="0"), "cannot be read"),
        (offer(AUDIO.replace("actpass", "perhaps"), mids="0"), "cannot be read"),
        (offer(*([VIDEO] * 33), mids="2"), "more than 32"),
        (offer(AUDIO + "a=rtpmap:99 x/1\n" * 2_000, mids="0"), "more than 2000 lines"),
    ],
)
async def test_a_bad_offer(client: httpx.AsyncClient, sdp: str, words: str) -> None:
    """Is refused, as JSON that says why; no place is taken."""
    response = await _post(client, sdp)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert words in error["message"]


async def test_bad_requests(client: httpx.AsyncClient) -> None:
    """Are told apart by their status."""
    post = client.post
    url = "/v1/realtime/calls"
    large = await _post(client, offer() + "a=x:" + "x" * 300_000)
    assert (large.status_code, "too large" in large.text) == (413, True)
    assert (await post(url, json={"sdp": offer()})).status_code == 415
    assert (await post(url, content=b"\xff\xfe")).status_code == 400
    wrong_key = await _post(client, offer(), authorization="Bearer sk-wrong")
    assert wrong_key.status_code == 401
    assert wrong_key.json()["error"]["code"] == "invalid_api_key"
    wrong_key = await _post(client, offer(), authorization="Bearer ek_123")
    assert wrong_key.status_code == 401
    assert (await post(f"{url}/rtc_x_1/hangup")).json()["error"]["code"] == "call_not_found"
    assert (await post(f"{url}/nonsense/hangup")).status_code == 404
    no_boundary = await post(url, content="x", headers={"content-type": "multipart/form-data"})
    assert no_boundary.status_code == 400
    broken = {"content-type": "multipart/form-data; boundary=b"}
    assert (await post(url, content="x", headers=broken)).status_code == 400


async def test_a_backend_posts_offer_and_session(client: httpx.AsyncClient) -> None:
    """Parts are read by their names, whatever types and file names they have."""
    session = json.dumps({"type": "realtime", "audio": {"output": {"voice": "alloy"}}})
    url = "/v1/realtime/calls"
    as_fields = {"sdp": (None, offer()), "session": (None, session)}
    assert (await client.post(url, files=as_fields)).status_code == 201
    as_files = {
        "sdp": ("offer.sdp", offer(), "application/sdp"),
        "session": ("session.json", session, "application/json"),
    }
    assert (await client.post(url, files=as_files)).status_code == 201
    refused = await client.post(url, files={"session": (None, session)})
    assert refused.json()["error"]["param"] == "sdp"
    for given, param in (("{", "session"), ('{"type": "realtime", "x": 1}', "session.x")):
        refused = await client.post(url, files={"sdp": (None, offer()), "session": (None, given)})
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == param


async def test_an_ephemeral_key_calls(client: httpx.AsyncClient) -> None:
    """A page calls with a key that its backend made, at the GA path and at beta's."""
    secret = await client.post("/v1/realtime/client_secrets", json={"max_sessions": 3})
    value = secret.json()["value"]
    key = f"Bearer {value}"
    for path in ("/v1/realtime/calls", "/v1/realtime?model=anything", "/openai/v1/realtime/calls"):
        assert (await _post(client, offer(), path, authorization=key)).status_code == 201
    # Calls that nobody has come to yet are the key's as well, and go with it.
    assert (await _post(client, offer(), authorization=key)).status_code == 429
    revoked = await client.post("/v1/realtime/client_secrets/revoke", json={"value": value})
    assert revoked.status_code == 200
    assert (await _post(client, offer(), authorization=key)).status_code == 401
    async with asyncio.timeout(10):
        while (await _post(client, offer())).status_code != 201:  # noqa: ASYNC110
            await asyncio.sleep(0)  # as in `test_places`


async def test_a_bound_key_calls(client: httpx.AsyncClient) -> None:
    """An offer may not bring other instructions or functions than its key was bound to."""
    body = {"bound": True, "session": {"type": "realtime", "instructions": "Be brief."}}
    secret = await client.post("/v1/realtime/client_secrets", json=body)
    key = f"Bearer {secret.json()['value']}"
    for instructions, status in (("Be rude.", 400), ("Be brief.", 201)):
        session = json.dumps({"type": "realtime", "instructions": instructions})
        answer = await client.post(
            "/v1/realtime/calls",
            files={"sdp": (None, offer()), "session": (None, session)},
            headers={"authorization": key},
        )
        assert answer.status_code == status
        if status == 400:
            assert answer.json()["error"]["code"] == "session_bound"


async def test_places(client: httpx.AsyncClient) -> None:
    """The same offer twice makes two calls; one too many is refused before it is answered."""
    answers = [await _post(client, offer()) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [201, 201, 201, 503]
    assert answers[3].json()["error"]["code"] == "rate_limit_exceeded"
    assert answers[3].headers["retry-after"]
    assert len({answer.headers["location"] for answer in answers[:3]}) == 3
    # Ended by the server, a place is free again.
    path = answers[0].headers["location"]
    assert (await client.post(f"{path}/hangup")).status_code == 200
    async with asyncio.timeout(10):
        while (await _post(client, offer())).status_code != 201:  # noqa: ASYNC110
            await asyncio.sleep(0)  # requests in memory give the loop no turn of their own


async def test_ice_restart(client: httpx.AsyncClient) -> None:
    """A call's client gets new credentials for its new network; nobody else does."""
    first = await _post(client, offer())
    path = first.headers["location"]
    moved = offer().replace("a=ice-ufrag:abcd", "a=ice-ufrag:efgh")
    second = await _post(client, moved, path)
    assert second.status_code == 200

    def ufrags(answer: str) -> set[str]:
        return set(re.findall(r"a=ice-ufrag:(\S+)", answer))

    assert ufrags(first.text).isdisjoint(ufrags(second.text))
    stranger = await _post(
        client, moved.replace(FINGERPRINT, FINGERPRINT.replace("AB", "CD")), path
    )
    assert stranger.status_code == 400


@pytest.mark.slow
async def test_a_thousand_dead_offers() -> None:
    """Whoever never comes leaves nothing behind: no place, no port, no name, no task."""
    engine = scripted_engine(
        parse_script("reply: [say: hello]", "test"), max_sessions=1_000, ahead_ms=1_000
    )
    settings = Settings(webrtc=WebRtcSettings(port=0, connect_timeout_s=0.01))
    network = Network(settings.webrtc, "127.0.0.1", 0)
    app = create_app(settings, {"starter": [engine]}, network)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8000"
        ) as asking,
    ):
        await asyncio.sleep(0)  # the watch over keys ends at once: none has a limit
        before = len(asyncio.all_tasks())
        for _ in range(1_000):
            assert (await _post(asking, offer())).status_code == 201
        async with asyncio.timeout(30):
            await app.state.calls.until_none()
        assert len(network.exchange) == 0
        assert len(asyncio.all_tasks()) == before
        assert app.state.gateway.counts.calls_ended == {"not_connected": 1_000}


async def test_options_and_preflight(client: httpx.AsyncClient) -> None:
    """Both are answered."""
    for path in ("/v1/realtime", "/v1/realtime/calls", "/v1/realtime/calls/x/hangup"):
        assert (await client.options(path)).headers["allow"] == "OPTIONS, POST"
        preflight = await client.options(
            path,
            headers={
                "origin": "https://example.com",
                "access-control-request-method": "POST",
                "access-control-request-headers": "authorization, content-type",
            },
        )
        assert preflight.status_code == 200


async def test_ice_servers(client: httpx.AsyncClient) -> None:
    """Clients who ask get TURN servers, with credentials that end."""
    (server,) = (await client.get("/v1/realtime/ice_servers")).json()["ice_servers"]
    assert server["urls"] == ["turn:turn.example.com"]
    digest = hmac.digest(b"s", server["username"].encode(), hashlib.sha1)
    assert server["credential"] == base64.b64encode(digest).decode()
    del client.headers["authorization"]
    assert (await client.get("/v1/realtime/ice_servers")).status_code == 401


def test_ice_server_credentials() -> None:
    """A secret makes them from the time; without one they are as configured."""
    urls: tuple[Any, ...] = ("turns:a",)
    made = _ice_server(IceServer(urls=urls, username="u", secret="s"), 1_000.0)  # noqa: S106
    assert made["username"] == f"{1_000 + 24 * 3600}:u"
    fixed = _ice_server(IceServer(urls=urls, username="u", credential="c"), 0.0)
    assert fixed == {"urls": ["turns:a"], "username": "u", "credential": "c"}
    assert _ice_server(IceServer(urls=("stun:a",)), 0.0) == {"urls": ["stun:a"]}
