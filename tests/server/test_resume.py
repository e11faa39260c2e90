"""Clients that lose their network and come back to their sessions."""

import asyncio
import base64
import json
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from model.files.sound import read_sound
from model.messages import Engine
from model.scripted.script import parse_script
from server.audio.pcm import encode_pcm
from server.config.filters import FilterSettings
from server.config.models import ServedSettings
from server.config.server import ResumeSettings, ServerSettings
from server.config.settings import Settings
from server.config.tools import McpSettings
from server.serve import Server, uvicorn_config
from server.session import comeback, session
from tests.fakes.scripted import scripted_engine
from tests.server.fakes import EchoEngine
from tests.server.mcp.serving import serving as serving_mcp
from tests.server.mcp.serving import weather_server
from tests.server.serving import Served, serving
from tests.server.sounds import silence

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 30.0
Event = dict[str, Any]
_OPEN: list[ClientConnection] = []  # of the test that runs
SCRIPT = """
hear: [hello]
pace: { first_output_ms: 20, words_per_minute: 300, real_time_factor: 0.01 }
reply:
  - when: { user: weather }
    call: { name: get_weather, arguments: { city: paris } }
  - when: { function: get_weather }
    say: it rains
  - say: hello there
"""


@asynccontextmanager
async def resumable(
    engine: Engine | Mapping[str, Sequence[Engine]] | None = None,
    grace_s: float = 600.0,
    park_after_s: float = 600.0,
    models: Mapping[str, ServedSettings] | None = None,
    filters: FilterSettings | None = None,
    mcp: McpSettings | None = None,
    **server: Any,
) -> AsyncIterator[Served]:
    """Serve clients that may come back."""
    settings = Settings(
        server=ServerSettings(**server),
        resume=ResumeSettings(grace_s=grace_s, park_after_s=park_after_s),
        models=models or {},
        filters=filters or FilterSettings(),
        mcp=mcp or McpSettings(),
    )
    async with serving(engine or EchoEngine(), settings) as served:
        yield served
        served.app.state.gateway.comebacks.end_those_away()
        while _OPEN:
            await _OPEN.pop().close()


class Client:
    """A client that knows what it got, and comes back with that."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.got: list[Event] = []
        self.session_id = self.secret = ""
        self.socket: ClientConnection

    async def connect(self, query: str = "?resume=true") -> None:
        """Begin a session."""
        self.socket = await connect(f"{self.served.url}/v1/realtime{query}", max_size=None)
        _OPEN.append(self.socket)
        self.session_id = (await self.until("session.created"))["session"]["id"]

    async def resumable(self) -> "Client":
        """Begin a session to which it may come back."""
        await self.connect()
        self.secret = (await self.until("session.resumable"))["secret"]
        return self

    async def lose(self) -> None:
        """Lose the network, without a word."""
        self.socket.transport.abort()
        await self.socket.wait_closed()
        gateway = self.served.app.state.gateway
        await _until(lambda: gateway.comebacks.num_away == 1)

    async def come_back(self, **changes: str) -> Event:
        """Come back; returns what it is told."""
        given = {"session_id": self.session_id, "secret": self.secret}
        given |= {"last_event_id": self.got[-1]["event_id"], **changes}
        query = f"?session_id={given['session_id']}&last_event_id={given['last_event_id']}"
        url = f"{self.served.url}/v1/realtime{query}"
        headers = {"Parley-Resume": given["secret"]}
        self.socket = await connect(url, additional_headers=headers, max_size=None)
        _OPEN.append(self.socket)
        resumed: Event = json.loads(await self.socket.recv())
        assert resumed["type"] == "session.resumed"
        return resumed

    async def refused(self, **changes: str) -> tuple[int, str]:
        """Try to come back, in vain; returns status and code."""
        with pytest.raises(InvalidStatus) as refused:
            await self.come_back(**changes)
        response = refused.value.response
        return response.status_code, json.loads(response.body or b"")["error"]["code"]

    async def send(self, kind: str, **event: Any) -> None:
        """Send an event."""
        await self.socket.send(json.dumps({"type": kind, **event}))

    async def type(self, text: str, **response: Any) -> None:
        """Type a turn and ask for a response."""
        item = {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": text}],
        }
        await self.send("conversation.item.create", item=item)
        await self.send("response.create", response=response)

    async def append(self, pcm: np.ndarray) -> None:
        """Append sound at 24 kHz, 100 ms at a time."""
        data = encode_pcm(pcm.astype(np.float32))
        for start in range(0, len(data), 4_800):
            audio = base64.b64encode(data[start : start + 4_800]).decode()
            await self.send("input_audio_buffer.append", audio=audio)

    async def until(self, kind: str) -> Event:
        """Receive up to the first event of a kind."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                event: Event = json.loads(await self.socket.recv())
                self.got.append(event)
                if event["type"] == kind:
                    return event

    def text_of(self, kind: str) -> str:
        """Return all deltas of a kind."""
        return "".join(event["delta"] for event in self.got if event["type"] == kind)


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not is_so():  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.001)


async def test_a_reply_goes_on_and_nothing_of_it_is_missed() -> None:
    """What was sent into the dead connection comes again, once and in order."""
    async with resumable() as served:
        client = await Client(served).resumable()
        await client.type("one two three four five six")
        await client.until("response.output_audio.delta")
        await client.lose()
        resumed = await client.come_back()
        assert resumed["received_events"] == 2
        done = await client.until("response.done")
        said = done["response"]["output"][0]["content"][0]["transcript"]
        assert client.text_of("response.output_audio_transcript.delta") == said
        ids = [event["event_id"] for event in client.got]
        assert len(set(ids)) == len(ids), "nothing twice"
        sound = sum(
            len(base64.b64decode(event["delta"]))
            for event in client.got
            if event["type"] == "response.output_audio.delta"
        )
        assert sound == 8 * 3 * 80 * 48, "eight words of three frames, at 24 kHz"
        # What it heard of it is for the client to say, as ever.
        item_id = done["response"]["output"][0]["id"]
        await client.send(
            "conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=500
        )
        assert (await client.until("conversation.item.truncated"))["audio_end_ms"] == 500
        await client.type("again", output_modalities=["text"])
        await client.until("response.done")
        assert client.text_of("response.output_text.delta").endswith("six, again")


async def test_speech_goes_on_where_it_was_cut() -> None:
    """The clock of appended audio stands still meanwhile, and the turn is one."""
    words = read_sound(ROOT / "tests" / "assets" / "capital_of_france.wav", 24_000)
    sound = np.concatenate([silence(0.5, 24_000), words, silence(1.0, 24_000)])
    async with resumable() as served:
        client = await Client(served).resumable()
        await client.append(sound[: 24_000 * 3 // 2])
        started = await client.until("input_audio_buffer.speech_started")
        await client.lose()
        resumed = await client.come_back()
        # What was on its way is lost; the client knows, and goes on from there.
        await client.append(sound[resumed["received_audio_ms"] * 24 :])
        stopped = await client.until("input_audio_buffer.speech_stopped")
        done = await client.until("response.done")
        assert stopped["item_id"] == started["item_id"]
        whole = await Client(served).resumable()
        await whole.append(sound)
        same = [
            await whole.until(f"input_audio_buffer.speech_{what}")
            for what in ("started", "stopped")
        ]
        assert abs(same[0]["audio_start_ms"] - started["audio_start_ms"]) <= 32
        assert abs(same[1]["audio_end_ms"] - stopped["audio_end_ms"]) <= 64
        assert done["response"]["status"] == "completed"


async def test_a_call_of_a_function_is_answered_afterwards() -> None:
    """The model waits for what its call returns, wherever the client is."""
    engine = scripted_engine(parse_script(SCRIPT, "test"), max_sessions=2, ahead_ms=60_000)
    tool = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}}
    async with resumable(engine) as served:
        client = await Client(served).resumable()
        await client.send("session.update", session={"type": "realtime", "tools": [tool]})
        await client.type("weather")
        await client.until("response.created")
        await client.lose()
        await client.come_back()
        call = await client.until("response.function_call_arguments.done")
        await client.until("response.done")
        await client.lose()
        await client.come_back()
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "rain"}
        await client.send("conversation.item.create", item=output)
        await client.send("response.create")
        done = await client.until("response.done")
        assert done["response"]["output"][0]["content"][0]["transcript"] == "it rains"


@pytest.mark.parametrize("is_parked", [False, True])
@pytest.mark.parametrize("approve", [True, False])
async def test_a_request_for_approval_waits_for_its_client(
    *, is_parked: bool, approve: bool
) -> None:
    """Asked before the network went, answered when it is back, with the slot or without."""
    script = """
pace: {real_time_factor: 0, first_output_ms: 0}
reply:
  - {when: {output: '(?P<words>.+)'}, say: 'it said {words}'}
  - {when: {user: delete}, call: {name: delete_city, arguments: {city: oslo}}}
"""
    engine = scripted_engine(parse_script(script, "test"), max_sessions=2, ahead_ms=60_000)
    checks = [{"kind": "words", "of": ["output", "calls"], "words": ["never"]}]
    filters = FilterSettings.model_validate({"checks": checks})
    async with serving_mcp(weather_server().streamable_http_app()) as url:
        mcp = McpSettings.model_validate({"servers": {"maps": {"url": f"{url}/mcp"}}})
        park_after_s = 0.0 if is_parked else 600.0
        async with resumable(engine, park_after_s=park_after_s, filters=filters, mcp=mcp) as served:
            gateway = served.app.state.gateway
            client = await Client(served).resumable()
            tool = {"type": "mcp", "server_label": "maps"}
            await client.send("session.update", session={"type": "realtime", "tools": [tool]})
            await client.until("mcp_list_tools.completed")
            await client.type("delete", output_modalities=["text"])
            await client.until("response.done")
            (request,) = [
                event["item"]
                for event in client.got
                if event["type"] == "conversation.item.done"
                and event["item"]["type"] == "mcp_approval_request"
            ]
            await client.lose()
            if is_parked:
                await _until(lambda: gateway.counts.sessions_parked == 1)
            await client.come_back()
            answer = {"type": "mcp_approval_response", "approval_request_id": request["id"]}
            await client.send("conversation.item.create", item={**answer, "approve": approve})
            if approve:
                await client.until("response.mcp_call.completed")
            await client.send("response.create", response={"output_modalities": ["text"]})
            said = await client.until("response.output_text.done")
            told = "oslo is gone, False" if approve else "The call was not approved."
            assert said["text"] == f"it said {told}"
            assert not any(event["type"] == "error" for event in client.got)


async def test_what_a_call_returned_meanwhile_is_sent_afterwards() -> None:
    """A session without a slot still hears from servers; the model is told with all the rest."""
    came, may_return = asyncio.Event(), asyncio.Event()
    server = weather_server()

    @server.tool(structured_output=False)
    async def wait() -> str:
        """Wait."""
        came.set()
        await may_return.wait()
        return "late"

    script = """
pace: {real_time_factor: 0, first_output_ms: 0}
reply:
  - {when: {output: '(?P<words>.+)'}, say: 'it said {words}'}
  - {when: {user: wait}, call: {name: wait}}
"""
    engine = scripted_engine(parse_script(script, "test"), max_sessions=2, ahead_ms=60_000)
    async with serving_mcp(server.streamable_http_app()) as url:
        mcp = McpSettings.model_validate({"servers": {"maps": {"url": f"{url}/mcp"}}})
        async with resumable(engine, park_after_s=0.0, mcp=mcp) as served:
            gateway = served.app.state.gateway
            client = await Client(served).resumable()
            tool = {"type": "mcp", "server_label": "maps", "require_approval": "never"}
            await client.send("session.update", session={"type": "realtime", "tools": [tool]})
            await client.until("mcp_list_tools.completed")
            await client.type("wait", output_modalities=["text"])
            await client.until("response.done")
            async with asyncio.timeout(TIMEOUT_S):
                await came.wait()
            await client.lose()
            await _until(lambda: gateway.counts.sessions_parked == 1)
            may_return.set()
            await client.come_back()
            await client.until("response.mcp_call.completed")
            await client.send("response.create", response={"output_modalities": ["text"]})
            assert (await client.until("response.output_text.done"))["text"] == "it said late"


async def test_strangers_stay_out() -> None:
    """Nobody comes back without the secret, and wrong ones are counted and slowed as keys are."""
    async with resumable() as served:
        client = await Client(served).resumable()
        wrong = client.secret[:-1] + ("A" if client.secret[-1] != "A" else "B")
        assert await client.refused(secret=wrong) == (404, "session_not_found")
        assert await client.refused(secret="") == (404, "session_not_found")
        assert await client.refused(session_id="sess_none") == (404, "session_not_found")
        assert await client.refused(last_event_id="event_none") == (409, "events_lost")
        assert served.app.state.gateway.counts.failed_keys == 3
        await client.type("still here", output_modalities=["text"])
        await client.until("response.done")


async def test_a_page_comes_back_by_a_subprotocol_and_reads_why_it_may_not() -> None:
    """It cannot set headers, nor read a refused handshake."""
    async with resumable() as served:
        client = await Client(served).resumable()
        await client.lose()
        base = f"{served.url}/v1/realtime?session_id={client.session_id}&last_event_id="
        protocols: Any = ["realtime", f"parley-resume.{client.secret}"]
        origin: Any = "http://localhost"
        async with connect(f"{base}x", subprotocols=protocols, origin=origin) as socket:
            assert json.loads(await socket.recv())["error"]["code"] == "events_lost"
        last = client.got[-1]["event_id"]
        async with connect(f"{base}{last}", subprotocols=protocols, origin=origin) as socket:
            assert json.loads(await socket.recv())["type"] == "session.resumed"
            assert socket.subprotocol == "realtime"


async def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has missed more begins anew."""
    monkeypatch.setattr(comeback, "MAX_EVENTS", 8)
    async with resumable() as served:
        client = await Client(served).resumable()
        early = client.got[-1]["event_id"]
        await client.type("hello")
        await client.until("response.done")
        assert await client.refused(last_event_id=early) == (409, "events_lost")
    kept = comeback.Comeback(1.0, 1.0, 64)
    for number in range(100):
        kept.note(f"event_{number}", "x" * (comeback.MAX_CHARS // 10))
    assert kept.missed("event_92") is not None
    assert kept.missed("event_80") is None


async def test_the_grace_is_over() -> None:
    """Then the session has ended, and its slot is free."""
    async with resumable(grace_s=0.05) as served:
        client = await Client(served).resumable()
        client.socket.transport.abort()
        gateway = served.app.state.gateway
        await _until(lambda: served.pool.num_sessions == 0)
        assert await client.refused() == (404, "session_not_found")
        assert gateway.counts.sessions_ended == {"client": 1}


async def test_the_later_of_two_has_the_session() -> None:
    """Also while the first one's connection is not known to be dead."""
    async with resumable() as served:
        client = await Client(served).resumable()
        first = client.socket
        await client.come_back()
        await first.wait_closed()
        assert (first.close_code, first.close_reason) == (
            1000,
            "Another connection has taken this one's place.",
        )
        second = client.socket
        await client.come_back()
        await second.wait_closed()
        assert second.close_code == 1000
        await client.type("here", output_modalities=["text"])
        await client.until("response.done")
        assert served.app.state.gateway.counts.sessions_resumed == 2


async def test_a_client_that_says_goodbye_is_not_waited_for() -> None:
    """Nor one that did not ask, nor any where it is off."""
    async with resumable() as served:
        client = await Client(served).resumable()
        await client.socket.close()
        await _until(lambda: served.pool.num_sessions == 0)
        plain = Client(served)
        await plain.connect("")
        plain.socket.transport.abort()
        await _until(lambda: served.pool.num_sessions == 0)
    async with resumable(grace_s=0.0) as served:
        off = Client(served)
        await off.connect()
        await off.type("hello", output_modalities=["text"])
        await off.until("response.done")
        assert not any(event["type"] == "session.resumable" for event in off.got)
        await off.socket.close()


@pytest.mark.parametrize("checks", [[], [{"kind": "words", "words": ["refused"]}]])
async def test_a_session_is_parked_and_remembers(checks: list[dict[str, Any]]) -> None:
    """Its slot is somebody else's meanwhile; who comes back waits for one that is free."""
    engine, filters = EchoEngine(), FilterSettings.model_validate({"checks": checks})
    async with resumable(engine, park_after_s=0.0, filters=filters) as served:
        gateway = served.app.state.gateway
        client = await Client(served).resumable()
        await client.type("my name is peter", output_modalities=["text"])
        await client.until("response.done")
        await client.lose()
        await _until(lambda: served.pool.num_sessions == 0)
        others = [Client(served), Client(served)]
        for other in others:
            await other.connect("")
        assert await client.refused() == (503, "rate_limit_exceeded")
        await others[0].socket.close()
        await _until(lambda: served.pool.num_sessions == 1)
        await client.come_back()
        await client.type("again", output_modalities=["text"])
        await client.until("response.done")
        assert client.text_of("response.output_text.delta").endswith("my name is peter, again")
        assert engine.max_open == 2
        assert gateway.counts.sessions_parked == 1
        await others[1].socket.close()
        await client.socket.close()
        await _until(lambda: served.pool.num_sessions == 0)


async def test_a_client_comes_back_to_its_own_model() -> None:
    """To any engine of it that has a place; what others have free does not count."""
    models = {"other": ServedSettings(), "own": ServedSettings()}
    engines = {"other": [EchoEngine()], "own": [EchoEngine(), EchoEngine()]}
    async with resumable(engines, park_after_s=0.0, models=models) as served:
        pool = served.app.state.gateway.models.named("own").pool
        client = Client(served)
        await client.connect("?resume=true&model=own")
        client.secret = (await client.until("session.resumable"))["secret"]
        await client.type("my name is peter", output_modalities=["text"])
        await client.until("response.done")
        await client.lose()
        await _until(lambda: pool.num_sessions == 0)
        others = [Client(served) for _ in range(4)]
        for other in others:
            await other.connect("?model=own")
        assert await client.refused() == (503, "rate_limit_exceeded")
        # Of the second engine a single place comes free.
        await others[3].socket.close()
        await _until(lambda: pool.num_sessions == 3)
        assert [link.num_sessions for link in pool.links] == [2, 1]
        await client.come_back()
        assert [link.num_sessions for link in pool.links] == [2, 2]
        await client.type("again", output_modalities=["text"])
        await client.until("response.done")
        assert client.text_of("response.output_text.delta").endswith("my name is peter, again")
        assert served.pool.num_sessions == 0, "nobody came to the other model"


async def test_a_reply_is_not_parked(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made to its end first."""
    monkeypatch.setattr(session, "_PARK_EVERY_S", 0.001)
    async with resumable(park_after_s=0.0) as served:
        gateway = served.app.state.gateway
        client = await Client(served).resumable()
        await client.type("endless")
        await client.until("response.output_audio.delta")
        await client.lose()
        await asyncio.sleep(0)
        assert served.pool.num_sessions == 1
        await client.come_back()
        await client.send("response.cancel")
        assert (await client.until("response.done"))["response"]["status"] == "cancelled"
        await client.lose()
        await _until(lambda: gateway.counts.sessions_parked == 1)


async def test_a_client_comes_back_while_the_server_drains() -> None:
    """It is told when that ends; those that are away when the server stops are ended."""
    async with resumable() as served:
        gateway = served.app.state.gateway
        client = await Client(served).resumable()
        await client.lose()
        gateway.drain.begin()
        await client.come_back()
        await client.until("session.updated")
        with pytest.raises(InvalidStatus):
            await Client(served).connect()
        await client.lose()
        gateway.comebacks.end_those_away()
        await _until(lambda: served.pool.num_sessions == 0)
        assert gateway.counts.sessions_ended == {"stopping": 1}


async def test_a_drain_waits_for_a_parked_session() -> None:
    """It has no slot, and its client is let in all the same: the server does not end before."""
    async with resumable(park_after_s=0.0) as served:
        gateway = served.app.state.gateway
        server = Server(uvicorn_config(served.app, gateway.settings), served.app)
        client = await Client(served).resumable()
        await client.lose()
        await _until(lambda: served.pool.num_sessions == 0)
        server.handle_exit(signal.SIGTERM, None)
        assert await server.on_tick(1) is False
        assert gateway.drain.is_begun
        await client.come_back()
        await client.until("session.updated")
        await client.socket.close()
        await _until(lambda: served.pool.num_sessions == 0)
        assert await server.on_tick(2) is True


async def test_a_reader_that_is_too_slow_may_come_back() -> None:
    """What ends a session otherwise is a network that is too slow for now."""
    async with resumable() as served:
        gateway = served.app.state.gateway
        client = await Client(served).resumable()
        found = gateway.comebacks.find(client.session_id, client.secret)
        found._own.lose()  # its queue is full
        await client.socket.wait_closed()
        assert client.socket.close_code == 1011
        await _until(lambda: gateway.comebacks.num_away == 1)
        await client.come_back()
        await client.type("hello", output_modalities=["text"])
        await client.until("response.done")
