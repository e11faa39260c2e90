"""Calls over WebRTC, with stock aiortc as the client, against the scripted engine."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import websockets

from benchmarks.light_caller import LightCaller
from benchmarks.relay import Relay, Weather, relaying
from model.scripted.script import parse_script
from server.config.settings import Settings
from server.config.webrtc import WebRtcSettings
from server.webrtc.network import Network
from tests.fakes.scripted import scripted_engine
from tests.server.serving import Served, serving
from tests.server.webrtc.caller import Caller, calling, question
from tests.server.webrtc.offers import offer
from tests.server.webrtc.serving import SCRIPT, taking_calls


async def test_three_turns() -> None:
    """The user speaks three times, and hears three replies."""
    async with taking_calls() as served, calling(served) as caller:
        assert (await caller.until("session.created"))["session"]["id"].startswith("sess_")
        for expected in ("hello there", "paris it is"):
            caller.microphone.say(question("two_plus_two"))
            said = await caller.until("response.output_audio_transcript.done")
            assert said["transcript"] == expected
            stopped = await caller.until("output_audio_buffer.stopped")
            assert stopped["response_id"] == said["response_id"]
    kinds = [event["type"] for event in caller.seen]
    assert "response.output_audio.delta" not in kinds
    assert kinds.count("output_audio_buffer.started") == 2
    assert np.abs(np.concatenate(caller.heard)).max() > 1_000


async def test_barge_in() -> None:
    """Speech cuts the reply short, and history keeps what was sent of it."""
    async with taking_calls() as served, calling(served) as caller:
        await caller.until("session.created")
        caller.microphone.say(question("two_plus_two"))
        await caller.until("output_audio_buffer.stopped")
        caller.microphone.say(question("two_plus_two"))
        await caller.until("output_audio_buffer.stopped")
        caller.microphone.say(question("capital_of_france"))
        started = await caller.until("output_audio_buffer.started")
        caller.microphone.say(question("my_name_is_peter"))
        await caller.until("input_audio_buffer.speech_started")
        cleared = await caller.until("output_audio_buffer.cleared")
        assert cleared["response_id"] == started["response_id"]
        truncated = await caller.until("conversation.item.truncated")
        caller.send(type="conversation.item.retrieve", item_id=truncated["item_id"])
        item = (await caller.until("conversation.item.retrieved"))["item"]
        assert 0 < len(item["content"][0]["transcript"].split()) < 15
        assert 0 < truncated["audio_end_ms"] < 4_000


async def test_the_stop_button() -> None:
    """A client silences a reply, made and unmade, and the item ends where it was."""
    async with taking_calls() as served, calling(served) as caller:
        await caller.until("session.created")
        caller.send(
            type="conversation.item.create",
            item={
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "tell me a story"}],
            },
        )
        caller.send(type="response.create")
        await caller.until("output_audio_buffer.started")
        caller.send(type="response.cancel")
        caller.send(type="output_audio_buffer.clear")
        assert (await caller.until("response.done"))["response"]["status"] == "cancelled"
        await caller.until("output_audio_buffer.cleared")
        assert (await caller.until("conversation.item.truncated"))["audio_end_ms"] > 0
        caller.send(type="output_audio_buffer.clear")  # there is nothing left to clear
        caller.send(type="input_audio_buffer.clear")
        await caller.until("input_audio_buffer.cleared")
    assert [e["type"] for e in caller.seen].count("output_audio_buffer.cleared") == 1


def num_descriptors() -> int:
    """Count the files and sockets that this process has open."""
    return len([*Path("/proc/self/fd").iterdir()])


async def test_nothing_is_left(no_tasks_left: None) -> None:
    """After calls that end in every way, no slot, task, port or descriptor is taken."""
    del no_tasks_left
    async with taking_calls() as served:
        calls = served.app.state.calls
        pool = served.pool
        descriptors = None
        for way in ("client", "server", "client", "server"):
            async with calling(served) as caller:
                await caller.until("session.created")
                assert (calls.num_calls, pool.num_sessions) == (1, 1)
                if way == "server":
                    assert await caller.hang_up() == 200
                    async with asyncio.timeout(10):
                        await caller.is_closed.wait()
            async with asyncio.timeout(10):
                await calls.until_none()
            assert pool.num_sessions == 0
            count = num_descriptors()
            descriptors = descriptors or count
            assert count <= descriptors
        assert served.app.state.gateway.counts.calls_ended == {"client": 2, "hung_up": 2}
        assert await caller.hang_up() == 404


async def test_large_messages() -> None:
    """Events beyond 16 KiB pass both ways; what the client cannot take is named to it."""
    async with taking_calls() as served, calling(served) as caller:
        await caller.until("session.created")
        instructions = "word " * 13_000
        session = {"type": "realtime", "instructions": instructions}
        caller.send(type="session.update", session=session)
        updated = await caller.until("session.updated")
        assert updated["session"]["instructions"] == instructions
        # What a client changes bit by bit, it is told of as a whole: 260,000 bytes, and then some.
        session["instructions"] = "\U0001f99c" * 65_000
        event = {"type": "session.update", "session": session}
        caller.channel.send(json.dumps(event, ensure_ascii=False))
        updated = await caller.until("session.updated")
        assert updated["session"]["instructions"] == session["instructions"]
        tool = {"type": "function", "name": "sing", "description": "la " * 1_000}
        caller.send(type="session.update", session={"type": "realtime", "tools": [tool]})
        error = (await caller.until("error"))["error"]
        assert error["code"] == "message_too_large"
        assert "session.updated" in error["message"]


async def test_a_second_connection_to_a_call() -> None:
    """A backend sees what the client sees, sends as it does, and leaves without ending the call."""
    async with taking_calls() as served, calling(served) as caller:
        await caller.until("session.created")
        url = f"{served.url}/v1/realtime?call_id={caller.call_id}"
        async with websockets.connect(url) as beside:
            created = json.loads(await beside.recv())
            assert created["type"] == "session.created"
            session = {"type": "realtime", "instructions": "be brief"}
            await beside.send(json.dumps({"type": "session.update", "session": session}))
            assert json.loads(await beside.recv())["type"] == "session.updated"
            await caller.until("session.updated")
            caller.send(type="input_audio_buffer.clear")
            assert json.loads(await beside.recv())["type"] == "input_audio_buffer.cleared"
            await beside.send('{"type": "nonsense", "event_id": "mine"}')
            assert json.loads(await beside.recv())["error"]["event_id"] == "mine"
        caller.send(type="input_audio_buffer.clear")
        await caller.until("input_audio_buffer.cleared")
        assert "error" not in [event["type"] for event in caller.seen]
        async with websockets.connect(url) as beside:
            await beside.recv()
            await caller.hang_up()
            with pytest.raises(websockets.ConnectionClosed):
                await beside.recv()
            assert beside.close_code == 1000


@asynccontextmanager
async def bad_network(weather: Weather, **webrtc: Any) -> AsyncIterator[tuple[Served, Relay]]:
    """Serve a script behind a relay, whose port is all that callers are told of."""
    async with (
        relaying(weather) as relay,
        taking_calls(addresses=(f"127.0.0.1:{relay.port}",), **webrtc) as served,
    ):
        relay.lead_to(served.app.state.calls.udp_port)
        yield served, relay


async def test_a_bad_network() -> None:
    """With 5 % loss, 60 ms of jitter and reordering both ways, the talk goes on."""
    weather = Weather(loss=0.05, jitter_s=0.06, seed=1)
    async with bad_network(weather) as (served, _), calling(served) as caller:
        await caller.until("session.created")
        for expected in ("hello there", "paris it is"):
            caller.microphone.say(question("two_plus_two"))
            said = await caller.until("response.output_audio_transcript.done")
            assert said["transcript"] == expected
            await caller.until("output_audio_buffer.stopped")
        (call,) = served.app.state.calls.all
        assert call.receiver_counts.concealed > 0
        # What was sent until now is one second after another, whatever became of the packets.
        assert call.receiver_counts.concealed < 0.2 * call.receiver_counts.received
    assert weather.num_lost > 0


async def test_an_address_that_changes() -> None:
    """A client whose NAT gives it another port in the middle of a call is followed."""
    async with bad_network(Weather()) as (served, relay), calling(served) as caller:
        await caller.until("session.created")
        await relay.rebind()
        caller.send(type="input_audio_buffer.clear")
        await caller.until("input_audio_buffer.cleared")
        (call,) = served.app.state.calls.all
        assert call._agent.num_switches == 1


async def test_a_network_that_goes() -> None:
    """Ends the call, and gives its place back."""
    async with (
        bad_network(Weather(), lost_after_s=1.0) as (served, relay),
        calling(served) as caller,
    ):
        await caller.until("session.created")
        relay.lead_to(9)  # discard
        calls = served.app.state.calls
        async with asyncio.timeout(20):
            await calls.until_none()
        assert served.app.state.gateway.counts.calls_ended == {"lost": 1}


async def test_a_port_of_its_own() -> None:
    """From a range each call takes a port, and gives it back."""
    first = 42_000 + os.getpid() % 20_000
    async with (
        taking_calls(port=None, ports=(first, first + 3)) as served,
        calling(served) as caller,
    ):
        await caller.until("session.created")
        (call,) = served.app.state.calls.all
        assert first <= call.candidates[0].port <= first + 3


async def test_a_key_that_is_revoked() -> None:
    """The call that came with it ends, and its client is told why; its place is free."""
    async with taking_calls() as served:
        url = f"http://127.0.0.1:{served.port}/v1/realtime/client_secrets"
        async with httpx.AsyncClient(timeout=60) as client:
            value = (await client.post(url, json={})).json()["value"]
            caller = Caller(served)
            await caller.call(authorization=f"Bearer {value}")
            await caller.until("session.created")
            answer = await client.post(f"{url}/revoke", json={"value": value})
            assert answer.status_code == 200
        error = (await caller.until("error"))["error"]
        assert error["code"] == "invalid_api_key"
        async with asyncio.timeout(60):
            await caller.is_closed.wait()
            await served.app.state.calls.until_none()
        assert served.pool.num_sessions == 0
        await caller.pc.close()
        await asyncio.gather(*caller.tasks)


async def test_ipv6() -> None:
    """A call goes by the family that the server names."""
    engine = scripted_engine(parse_script(SCRIPT, "test"), max_sessions=2, ahead_ms=1_000)
    settings = Settings(webrtc=WebRtcSettings(port=0, addresses=("::1",)))
    network = Network(settings.webrtc, "::1", 0)
    heard: list[np.ndarray] = []
    async with serving(engine, settings, network) as served:
        caller = LightCaller(24_000, heard.append, lambda: np.zeros(960, dtype=np.float32))
        await caller.call(served.port)
        await caller.until("session.created")
        item = {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "hello"}],
        }
        caller.send(type="conversation.item.create", item=item)
        caller.send(type="response.create")
        await caller.until("output_audio_buffer.stopped")
        await caller.close()
        async with asyncio.timeout(60):
            await served.app.state.calls.until_none()
    assert np.abs(np.concatenate(heard)).max() > 0.02


async def test_a_second_connection_that_is_first() -> None:
    """A backend may come before the call's client does; if that never comes, it is told."""
    async with taking_calls() as served:
        async with httpx.AsyncClient() as client:
            response = await client.post(
                f"http://127.0.0.1:{served.port}/v1/realtime/calls",
                content=offer(),
                headers={"content-type": "application/sdp"},
            )
        path = response.headers["location"]
        url = f"{served.url}/v1/realtime?call_id={path.rpartition('/')[2]}"
        async with websockets.connect(url) as beside, httpx.AsyncClient() as client:
            await client.post(f"http://127.0.0.1:{served.port}{path}/hangup")
            assert json.loads(await beside.recv())["error"]["code"] == "call_not_found"
            with pytest.raises(websockets.ConnectionClosed):
                await beside.recv()
            assert beside.close_code == 4000


async def test_a_server_without_calls() -> None:
    """Says so to whoever would join one."""
    engine = scripted_engine(parse_script(SCRIPT, "test"), max_sessions=2, ahead_ms=1_000)
    async with serving(engine, Settings()) as served:
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(f"{served.url}/v1/realtime?call_id=rtc_a_1")
        assert b"takes no WebRTC calls" in refused.value.response.body


async def test_a_second_connection_to_no_call() -> None:
    """Is refused, and told which server to ask where the id says so."""
    async with taking_calls(server_id="a") as served:
        for call_id, words in (("rtc_a_1", "has ended"), ("rtc_b_1", "server 'b'")):
            with pytest.raises(websockets.InvalidStatus) as refused:
                await websockets.connect(f"{served.url}/v1/realtime?call_id={call_id}")
            response = refused.value.response
            assert response.status_code == 404
            assert words in json.loads(response.body)["error"]["message"]
