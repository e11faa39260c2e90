"""Who is answered, who is let in, and what of a stream ends it."""

import asyncio
import json
import signal
from collections.abc import Callable
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from server.app import create_app
from server.config.models import ServedSettings
from server.config.server import ServerSettings
from server.config.settings import Settings
from server.config.telephony import TelephonySettings
from server.errors import ConfigError
from server.serve import Server, uvicorn_config
from server.telephony import call, routes
from server.telephony.calls import PhoneCalls
from server.telephony.signatures import twilio_signature
from tests.server.fakes import EchoEngine
from tests.server.serving import Served
from tests.server.telephony.phone import (
    CALL_ID,
    KEY,
    PUBLIC_KEY,
    PUBLIC_URL,
    STREAM_TOKEN,
    TIMEOUT_S,
    TOKEN,
    Phone,
    answering,
    beside,
    dial_telnyx,
    dial_twilio,
    on_the_phone,
    played_to_the_end,
    post,
    script_engine,
    signed_url,
    stream_of,
)


async def _refused(url: str, **headers: str) -> int:
    """Return the status of a handshake."""
    with pytest.raises(InvalidStatus) as refused:
        async with connect(url, additional_headers=headers):
            pass
    return refused.value.response.status_code


# Webhooks.


async def test_wrong_webhooks() -> None:
    """Without a signature, with one of another address or form; too large; no form; no call."""
    async with answering() as served:
        place, body = "/v1/telephony/twilio", b"CallSid=CA1"
        url = f"{PUBLIC_URL}{place}"
        right = twilio_signature(TOKEN, url, [("CallSid", "CA1")])
        name = "X-Twilio-Signature"
        assert (await post(served, place, body))[0] == 403
        assert (await post(served, f"{place}?x=1", body, **{name: right}))[0] == 403
        assert (await post(served, place, b"CallSid=CA2", **{name: right}))[0] == 403
        forwarded = {name: right, "Host": "evil.example", "X-Forwarded-Host": "evil.example"}
        assert (await post(served, place, body, **forwarded))[0] == 200, "no header is believed"
        assert (await post(served, place, b"x" * (256 * 1024 + 1)))[0] == 413
        assert (await post(served, place, b"\xff"))[0] == 400
        assert (await post(served, place, b"&".join([b"a=1"] * 300)))[0] == 400
        empty = {name: twilio_signature(TOKEN, url)}
        status, answer = await post(served, place, b"", **empty)
        assert (status, json.loads(answer)["error"]["code"]) == (400, "missing_required_parameter")
        counts = served.app.state.gateway.counts.phone_calls_refused
        assert counts["invalid_signature"] == 3


async def test_telnyx_webhooks() -> None:
    """Signed, and once; the answer tells it to take sound."""
    async with answering() as served:
        status, answer = await dial_telnyx(served)
        assert status == 200
        url, parameters, attributes = stream_of(answer)
        assert url.startswith("ws://127.0.0.1:1/v1/telephony/telnyx/")
        assert parameters == {"from": "+1", "to": "+2"}
        assert attributes["bidirectionalMode"] == "rtp"
        status, answer = await dial_telnyx(served, 1_000)
        assert (status, json.loads(answer)["error"]["code"]) == (403, "invalid_signature")
        body = b"CallSid=v3"
        assert (await post(served, "/v1/telephony/telnyx", body))[0] == 403


async def test_a_webhook_that_is_sent_again_is_refused() -> None:
    """The same bytes, however right."""
    async with answering() as served:
        stamp = 2_000_000_000
        served.app.state.phone._verifier._clock = lambda: float(stamp)
        assert (await dial_telnyx(served, stamp))[0] == 200
        assert (await dial_telnyx(served, stamp))[0] == 403


async def test_who_cannot_be_served_hears_why() -> None:
    """All places taken, or a drain: a sentence, or a busy tone."""
    async with (
        answering(max_sessions=1, busy_text="Try later.") as served,
        on_the_phone(served),
        beside(served),
    ):
        status, answer = await dial_twilio(served, CallSid="CA2")
        assert status == 200
        assert "<Say>Try later.</Say><Hangup />" in answer
    async with answering(busy_text="") as served:
        served.app.state.gateway.drain.begin()
        assert '<Reject reason="busy" />' in (await dial_twilio(served))[1]
        counts = served.app.state.gateway.counts.phone_calls_refused
        assert counts == {"draining": 1}


async def test_off_unless_configured() -> None:
    """And each provider for itself."""
    async with answering(telnyx={}) as served:
        assert (await dial_telnyx(served))[0] != 200
        assert (await dial_twilio(served))[0] == 200
    async with answering(telnyx={}, twilio={}) as served_off:
        assert (await dial_twilio(served_off))[0] != 200


# Streams.


async def test_wrong_streams() -> None:
    """Without a ticket, a signature, or with a ticket that was used."""
    async with answering() as served:
        url = stream_of((await dial_twilio(served))[1])[0]
        local, headers = signed_url(served, url)
        assert await _refused(local) == 403
        assert await _refused(f"{served.url}/v1/telephony/twilio", **headers) == 403
        other, other_headers = signed_url(served, url[:-3] + "AAA")
        assert await _refused(other, **headers) == 403
        assert await _refused(other, **other_headers) == 403
        assert await _refused(local.replace("twilio", "telnyx")) == 403
        async with connect(local, additional_headers=headers) as socket:
            phone = Phone(socket)
            await phone.begin()
            async with beside(served):
                assert await _refused(local, **headers) == 403, "replayed"
            await phone.send("stop", stop={})
            await phone.ended()


async def test_a_stream_is_the_call_that_it_was_opened_for() -> None:
    """And says so at once."""
    async with answering() as served:
        assert await _first(served, lambda phone: phone.begin("CA-other")) == 1008
        assert await _first(served, lambda phone: phone.send("media", media={})) == 1008
        assert await _first(served, lambda phone: phone.socket.send("{")) == 1008
        counts = served.app.state.gateway.counts
        assert counts.phone_calls_refused == {"no_start": 3}
        assert served.pool.num_coming == 0, "places are given back"


async def test_a_stream_that_says_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It had a place meanwhile."""
    monkeypatch.setattr(routes, "START_S", 0.01)

    async def nothing(phone: Phone) -> None:
        del phone

    async with answering() as served:
        assert await _first(served, nothing) == 1008


async def test_one_stream_a_call() -> None:
    """A second webhook for a call that is on does not get a second stream."""
    async with answering() as served, on_the_phone(served), beside(served):
        assert await _first(served, lambda phone: phone.begin()) == 1008


async def _first(served: Served, send: Callable[[Phone], Any]) -> int | None:
    """Open a stream, send something first; returns the code that it is closed with."""
    url = stream_of((await dial_twilio(served))[1])[0]
    local, headers = signed_url(served, url)
    async with connect(local, additional_headers=headers) as socket:
        await send(Phone(socket))
        await socket.wait_closed()
        return socket.close_code


async def test_telnyx_streams() -> None:
    """One that a webhook was answered for, and one that an application started by itself."""
    async with answering() as served:
        url = stream_of((await dial_telnyx(served))[1])[0]
        by_ticket = f"{served.url}/v1/telephony/telnyx/{url.rsplit('/', 1)[1]}"
        bare = f"{served.url}/v1/telephony/telnyx"
        name = "x-telnyx-streaming-auth-token"
        assert await _refused(bare) == 403
        assert await _refused(bare, **{name: STREAM_TOKEN[:-1]}) == 403
        for place, headers in ((by_ticket, {}), (bare, {name: STREAM_TOKEN})):
            async with connect(place, additional_headers=headers) as socket:
                phone = Phone(socket, "telnyx")
                await phone.begin("v3:1")
                async with beside(served, "v3:1") as backend:
                    await phone.speak()
                    await backend.until("response.done")
                    await played_to_the_end(phone, backend)
                await phone.send("stop", stop={})
                assert await phone.ended() == 1000
        assert served.app.state.gateway.counts.phone_calls == {"telnyx": 2}


# Ends.


async def test_malformed_messages_end_a_call_in_the_end() -> None:
    """A few of them are nothing."""
    async with answering() as served, on_the_phone(served) as phone:
        for _ in range(call._MAX_MALFORMED - 1):
            await phone.socket.send("nonsense")
        async with beside(served) as backend:
            await phone.speak()
            await backend.until("response.done")
        await phone.socket.send("x" * 100_000)
        assert await phone.ended() == 1000
        assert served.app.state.gateway.counts.phone_calls_ended == {"malformed": 1}


@pytest.mark.parametrize("flood", ["messages", "sound"])
async def test_floods_end_a_call(flood: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever talks faster than a telephone is none; another call goes on."""
    monkeypatch.setattr(call, "_MESSAGES_AT_ONCE", 200)
    monkeypatch.setattr(call, "_MESSAGES_A_SECOND", 0)
    monkeypatch.setattr(call, "_SOUND_AHEAD_S", 0.2 if flood == "sound" else 1e9)
    async with (
        answering() as served,
        on_the_phone(served, call_id="CA-victim") as victim,
        on_the_phone(served) as attacker,
    ):
        if flood == "messages":
            for _ in range(201):
                await attacker.send("mark", mark={"name": "m1"})
        else:
            await attacker.send("media", media={"payload": "A" * 60_000})
        assert await attacker.ended() == 1000
        assert served.app.state.gateway.counts.phone_calls_ended == {"too_fast": 1}
        async with beside(served, "CA-victim") as backend:
            await victim.press("42#")
            await backend.until("response.done")
            await played_to_the_end(victim, backend)


async def test_a_provider_that_plays_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """No mark came back, so nobody heard anything."""
    monkeypatch.setattr(call, "MARKS_WITHIN_S", 0.2)
    async with answering() as served, on_the_phone(served) as phone:
        await phone.press("42#")
        assert await phone.ended() == 1000
        assert served.app.state.gateway.counts.phone_calls_ended == {"no_marks": 1}


async def test_the_session_ends_the_call() -> None:
    """And the caller's end is the session's."""
    async with answering() as served:
        async with on_the_phone(served) as phone, beside(served) as backend:
            served.app.state.phone.find(CALL_ID).session.revoke()
            assert await phone.ended() == 3000
            await backend.socket.wait_closed()
        async with on_the_phone(served), beside(served) as backend:
            pass
        counts = served.app.state.gateway.counts
        assert counts.phone_calls_ended == {"session": 1, "caller": 1}
        assert counts.sessions_by_transport == {"telephony": 2}
        assert (await served.get("/metrics", authorization=f"Bearer {KEY}"))[1].count(
            'parley_phone_calls_ended_total{reason="caller"} 1.0'
        ) == 1


async def test_a_call_goes_on_in_a_drain_and_ends_with_the_server() -> None:
    """Its model talks on; then the stream closes with 1012."""
    async with answering() as served, on_the_phone(served) as phone, beside(served) as backend:
        served.app.state.gateway.drain.begin()
        await backend.until("session.updated")
        await phone.press("42#")
        await backend.until("response.done")
        await played_to_the_end(phone, backend)


async def test_a_call_that_was_connected_before_a_drain_is_held() -> None:
    """Its webhook was answered: the server waits for its stream. A later call is told to go."""
    async with answering() as served:
        gateway = served.app.state.gateway
        server = Server(uvicorn_config(served.app, gateway.settings), served.app)
        status, answer = await dial_twilio(served)
        assert status == 200
        server.handle_exit(signal.SIGTERM, None)
        assert await server.on_tick(1) is False
        assert gateway.drain.is_begun
        assert "<Say>" in (await dial_twilio(served, CallSid="CA2"))[1]
        local, headers = signed_url(served, stream_of(answer)[0])
        async with connect(local, additional_headers=headers) as socket:
            phone = Phone(socket)
            await phone.begin()
            async with beside(served) as backend:
                await phone.press("42#")
                await backend.until("response.done")
            assert await server.on_tick(2) is False
            await phone.send("stop", stop={"callSid": CALL_ID})
            await phone.ended()
        async with asyncio.timeout(TIMEOUT_S):
            while not await server.on_tick(3):  # noqa: ASYNC110 - as uvicorn does
                await asyncio.sleep(0)


# Settings.


def test_settings_that_cannot_be() -> None:
    """Each is refused by name, before anything runs."""
    twilio = {"auth_tokens": [TOKEN]}
    for given, reason in (
        ({"twilio": twilio}, "public_url is needed"),
        ({"public_url": "https://h/", "twilio": twilio}, "public_url"),
        ({"telnyx": {"public_key": "short"}}, "public_key"),
        ({"telnyx": {"codec": "PCMA", "rate_hz": 16_000}}, "only L16"),
        ({"telnyx": {"stream_token": "short"}}, "stream_token"),
    ):
        with pytest.raises(ValueError, match=reason):
            TelephonySettings.model_validate(given)
    open_to_all = TelephonySettings.model_validate(
        {"public_url": "https://voice.example.com", "twilio": twilio}
    )
    with pytest.raises(ValueError, match="no API keys"):
        Settings(telephony=open_to_all)
    assert Settings(server=ServerSettings(api_keys=(KEY,)), telephony=open_to_all).telephony.is_on


@pytest.mark.parametrize(
    ("telephony", "reason"),
    [
        ({"session": {"voice": "x"}}, "telephony.session: .*voice"),
        ({"session": {"audio": {"output": {"voice": "x"}}}}, "telephony.session: .*voice"),
        ({"session": {"model": "none"}}, "telephony.session: The model 'none' does not exist"),
        ({"session": {"model": 1}}, "telephony.session: .*session.model"),
        ({"telnyx": {"public_key": PUBLIC_KEY[:-2] + "=="}}, "public_key"),
    ],
)
def test_sessions_that_cannot_be(telephony: dict[str, Any], reason: str) -> None:
    """What every call begins with is checked when the server starts."""
    given = {"public_url": PUBLIC_URL, "twilio": {"auth_tokens": [TOKEN]}}
    with pytest.raises((ConfigError, ValueError), match=reason):
        create_app(
            Settings(
                server=ServerSettings(api_keys=(KEY,)),
                telephony=TelephonySettings.model_validate(given | telephony),
                models={"echo": ServedSettings(), "other": ServedSettings()},
            ),
            {"echo": [EchoEngine()], "other": [EchoEngine()]},
        )


async def test_functions_that_cannot_be_are_told_at_the_start() -> None:
    """They are compiled by a server that runs."""
    tool = {"type": "function", "name": "f", "parameters": {"type": "nonsense"}}
    given = {"public_url": PUBLIC_URL, "twilio": {"auth_tokens": [TOKEN]}}
    telephony = TelephonySettings.model_validate({**given, "session": {"tools": [tool]}})
    async with answering() as served:
        phone = PhoneCalls(Settings(telephony=telephony), served.app.state.gateway.models)
        with pytest.raises(ConfigError, match="telephony\\.session"):
            await routes.check_session(served.app.state.gateway, phone)


@pytest.mark.parametrize(("session", "name"), [({}, "small"), ({"model": "alias"}, "large")])
async def test_calls_have_the_model_that_is_named(session: dict[str, Any], name: str) -> None:
    """By its name or an alias, of which there are several; else the default one."""
    models = {"small": ServedSettings(), "large": ServedSettings(aliases=("alias",))}
    engines = {each: [script_engine(1)] for each in models}
    async with answering(engines, models=models, session=session) as served:
        gateway = served.app.state.gateway
        async with on_the_phone(served), beside(served) as backend:
            created = backend.seen[0]["session"]
            assert created["model"] == session.get("model", name)
            assert {each.name: each.pool.num_sessions for each in gateway.models} == {
                "small": int(name == "small"),
                "large": int(name == "large"),
            }
            # Its own model has no place for another call; that the other has one does not help.
            assert "All lines are busy" in (await dial_twilio(served, CallSid="CA2"))[1]
        [payer] = gateway.usage.totals
        assert (payer.key, payer.model) == ("", name)
