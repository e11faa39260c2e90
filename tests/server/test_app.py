"""The whole gateway over a loopback socket, with the stock `openai` client and an echo engine."""

import asyncio
import base64
import contextlib
import json
import re
import sys
from collections.abc import AsyncIterator, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from server.app import create_app, voice_map
from server.config.server import ServerSettings
from server.config.settings import Settings
from server.errors import ConfigError
from server.names import parley_version
from server.session.drain import Drain
from tests.server import oracle
from tests.server.fakes import INFO, EchoEngine
from tests.server.serving import Served, serving
from tests.server.sounds import base64_pcm, silence, voice

TIMEOUT_S = 20.0
RATE_HZ = 24_000
Event = dict[str, Any]


class Echo:
    """A server with an echo engine, and ways to connect."""

    def __init__(self, served: Served, engine: EchoEngine) -> None:
        self.engine = engine
        self.get = served.get
        self.drain: Drain = served.app.state.gateway.drain
        self.app, self.pool = served.app, served.pool
        self._served = served

    def realtime(self) -> AbstractAsyncContextManager[AsyncRealtimeConnection]:
        """Connect with the stock client."""
        base_url = f"http://127.0.0.1:{self._served.port}/v1"
        return AsyncOpenAI(api_key="any", base_url=base_url).realtime.connect(model="echo")

    def socket(self, path: str = "/v1/realtime?model=echo", **options: Any) -> Any:
        """Connect with a bare WebSocket."""
        return connect(f"{self._served.url}{path}", **options)


@asynccontextmanager
async def echoing(**server: Any) -> AsyncIterator[Echo]:
    """Serve an echo engine on a free port."""
    engine = EchoEngine()
    voices = {"alloy": "amber", "echo": "birch"}
    async with serving(engine, Settings(server=ServerSettings(**server), voices=voices)) as served:
        yield Echo(served, engine)
    assert engine.num_open == 0, "every session gave its slot back"


async def _until(connection: AsyncRealtimeConnection, *kinds: str) -> list[Event]:
    """Receive events up to the first of a kind; each must be one of the published ones."""
    events: list[Event] = []
    async with asyncio.timeout(TIMEOUT_S):
        while not events or events[-1]["type"] not in kinds:
            raw = json.loads(await connection.recv_bytes())
            oracle.check(raw)
            events.append(raw)
    return events


async def _say(connection: AsyncRealtimeConnection, seconds: float) -> None:
    """Speak, then be silent until any turn would end, in chunks of 20 ms."""
    for pcm in (silence(0.2, RATE_HZ), voice(seconds, RATE_HZ), silence(0.9, RATE_HZ)):
        for start in range(0, len(pcm), RATE_HZ // 50):
            chunk = base64_pcm(pcm[start : start + RATE_HZ // 50])
            await connection.input_audio_buffer.append(audio=chunk)


def _only(events: list[Event], kind: str) -> Event:
    (event,) = [event for event in events if event["type"] == kind]
    return event


@pytest.mark.usefixtures("no_tasks_left")
async def test_three_spoken_turns_with_memory() -> None:
    """The stock client holds a spoken conversation; the third answer knows the first turn."""
    async with echoing() as served, served.realtime() as connection:
        (created,) = await _until(connection, "session.created")
        assert created["session"]["model"] == "starter"
        await connection.session.update(
            session={
                "type": "realtime",
                "audio": {
                    "input": {
                        "transcription": {"model": "whisper-1"},
                        # The test's voice is a buzz, and speech by a little only.
                        "turn_detection": {"type": "server_vad", "threshold": 0.3},
                    },
                    "output": {"voice": "echo"},
                },
            }
        )
        await _until(connection, "session.updated")
        heard: list[str] = []
        replies: list[str] = []
        for seconds in (1.5, 2.5, 0.7):
            await _say(connection, seconds)
            events = await _until(connection, "rate_limits.updated")
            started = _only(events, "input_audio_buffer.speech_started")
            stopped = _only(events, "input_audio_buffer.speech_stopped")
            committed = _only(events, "input_audio_buffer.committed")
            assert started["item_id"] == stopped["item_id"] == committed["item_id"]
            audio_ms = stopped["audio_end_ms"] - started["audio_start_ms"]
            # The padding before and the silence after belong to it.
            assert audio_ms == pytest.approx(seconds * 1000 + 300 + 500, abs=350)
            transcribed = _only(events, "conversation.item.input_audio_transcription.completed")
            assert transcribed["usage"]["seconds"] == pytest.approx(audio_ms / 1000, abs=0.01)
            done = _only(events, "response.done")["response"]
            assert done["status"] == "completed"
            assert done["audio"]["output"]["voice"] == "echo"
            audio = b"".join(
                base64.b64decode(event["delta"])
                for event in events
                if event["type"] == "response.output_audio.delta"
            )
            num_words = len(done["output"][0]["content"][0]["transcript"].split())
            assert len(audio) == num_words * 3 * 1920 * 2
            heard.append(transcribed["transcript"])
            replies.append(done["output"][0]["content"][0]["transcript"])
    assert all(heard)
    assert replies == [f"you said {', '.join(heard[: turn + 1])}" for turn in range(3)]


@pytest.mark.usefixtures("no_tasks_left")
async def test_typed_turn_and_push_to_talk() -> None:
    """Text in and text out, then audio by hand in the same conversation."""
    async with echoing() as served, served.realtime() as connection:
        await connection.session.update(
            session={"type": "realtime", "audio": {"input": {"turn_detection": None}}}
        )
        await connection.conversation.item.create(
            item={
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "hello"}],
            }
        )
        await connection.response.create(response={"output_modalities": ["text"]})
        events = await _until(connection, "rate_limits.updated")
        assert _only(events, "response.output_text.done")["text"] == "you said hello"
        await connection.input_audio_buffer.append(audio=base64_pcm(voice(0.4, RATE_HZ)))
        await connection.input_audio_buffer.commit()
        await connection.response.create()
        events = await _until(connection, "rate_limits.updated")
        done = _only(events, "response.output_audio_transcript.done")
        assert done["transcript"] == "you said hello, one"


@pytest.mark.usefixtures("no_tasks_left")
async def test_speech_interrupts_a_reply() -> None:
    """Talking over a reply cancels it, and no audio of it follows its end."""
    async with echoing() as served, served.realtime() as connection:
        await connection.conversation.item.create(
            item={
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "endless"}],
            }
        )
        await connection.response.create()
        await _until(connection, "response.output_audio.delta")
        await _say(connection, 0.8)
        events = await _until(connection, "response.done")
        kinds = [event["type"] for event in events]
        assert "input_audio_buffer.speech_started" in kinds
        response = events[-1]["response"]
        assert response["status"] == "cancelled"
        assert response["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
        item_id = response["output"][0]["id"]
        await connection.conversation.item.truncate(
            item_id=item_id, content_index=0, audio_end_ms=80
        )
        events = await _until(connection, "conversation.item.truncated")
        late = [e for e in events if e.get("item_id") == item_id and "delta" in e]
        assert not late
        await connection.conversation.item.retrieve(item_id=item_id)
        events = await _until(connection, "conversation.item.retrieved")
        (part,) = events[-1]["item"]["content"]
        assert part["transcript"] == "you"
        assert len(base64.b64decode(part["audio"])) == 80 * RATE_HZ // 1000 * 2


def _message(text: str) -> Any:
    content = [{"type": "input_text", "text": text}]
    return {"type": "message", "role": "user", "content": content}


@pytest.mark.usefixtures("no_tasks_left")
async def test_responses_beside_the_conversation() -> None:
    """They answer what they are given, leave no trace, and fail alone where no slot is free."""
    async with echoing() as served, served.realtime() as connection:
        await connection.conversation.item.create(item=_message("hello"))
        aside: Any = {"conversation": "none", "output_modalities": ["text"]}
        whispered: Any = {**aside, "input": [_message("psst")], "metadata": {"topic": "secret"}}
        await connection.response.create(response=whispered)
        events = await _until(connection, "response.done")
        assert events[-1]["response"]["metadata"] == {"topic": "secret"}
        assert _only(events, "response.output_text.done")["text"] == "you said psst"
        assert served.engine.num_open == 1, "its slot is free again"
        # The echo engine has two slots: one for each session, and none for anything beside them.
        async with served.realtime() as other:
            await _until(other, "session.created")
            await connection.response.create(response=aside)
            events = await _until(connection, "response.done")
            error = events[-1]["response"]["status_details"]["error"]
            assert error["code"] == "rate_limit_exceeded"
        await connection.response.create(response={"output_modalities": ["text"]})
        events = await _until(connection, "response.done")
        assert _only(events, "response.output_text.done")["text"] == "you said hello"
        # What goes on beside a conversation ends with its connection.
        endless: Any = {**aside, "input": [_message("endless")]}
        await connection.response.create(response=endless)
        await _until(connection, "response.output_text.delta")


@pytest.mark.usefixtures("no_tasks_left")
async def test_what_a_function_returned_is_told_to_the_engine() -> None:
    """A history with a function call in it is replayed, ids and all."""
    async with echoing() as served, served.realtime() as connection:
        await connection.conversation.item.create(
            item={"type": "function_call", "call_id": "c", "name": "get_time", "arguments": "{}"}
        )
        await connection.conversation.item.create(
            item={"type": "function_call_output", "id": "mine", "call_id": "c", "output": "noon"}
        )
        await connection.response.create(response={"output_modalities": ["text"]})
        events = await _until(connection, "response.done")
        assert _only(events, "response.output_text.done")["text"] == "you said get_time noon"


@pytest.mark.usefixtures("no_tasks_left")
async def test_errors_do_not_close() -> None:
    """Whatever a client sends, the connection stays and the next event is served."""
    async with echoing() as served, served.socket() as client:
        await client.recv()
        for frame in ("{", "[]", '{"type":"nope","event_id":"e"}', '{"type":"session.update"}'):
            await client.send(frame)
            assert json.loads(await client.recv())["type"] == "error"
        await client.send(b"\x00\x01")
        assert json.loads(await client.recv())["error"]["code"] == "invalid_event"
        await client.send('{"type":"input_audio_buffer.append","audio":"*","event_id":"mine"}')
        error = json.loads(await client.recv())["error"]
        assert (error["code"], error["param"], error["event_id"]) == (
            "invalid_value",
            "audio",
            "mine",
        )
        await client.send('{"type":"input_audio_buffer.clear"}')
        assert json.loads(await client.recv())["type"] == "input_audio_buffer.cleared"


def _check_refusal(error: InvalidStatus) -> None:
    """Check that a connection was refused as one too many, before the upgrade."""
    response = error.response
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0
    body = json.loads(response.body or b"")["error"]
    assert (body["type"], body["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert str(INFO.max_sessions) in body["message"]


@pytest.mark.usefixtures("no_tasks_left")
async def test_capacity_is_refused_before_the_upgrade_and_given_back() -> None:
    """The stock client gets a 503 with the API's error; when another leaves there is room again."""
    async with echoing() as served:
        async with served.socket() as first, served.realtime() as second:
            await first.recv()
            await _until(second, "session.created")
            for connecting in (served.socket(), served.realtime()):
                with pytest.raises(InvalidStatus) as refused:
                    await connecting.__aenter__()
                _check_refusal(refused.value)
            # Those in progress have noticed nothing.
            await _say(second, 0.7)
            await _until(second, "response.done")
        async with served.socket() as again:
            assert json.loads(await again.recv())["type"] == "session.created"


@pytest.mark.usefixtures("no_tasks_left")
async def test_a_browser_is_told_of_capacity_by_an_event() -> None:
    """A page cannot read a refused upgrade: it gets an error and is closed with 1013."""
    async with echoing() as served, served.socket() as first, served.socket() as second:
        await first.recv()
        await second.recv()
        async with served.socket(origin="http://localhost:3000") as third:
            error = json.loads(await third.recv())["error"]
            assert error["code"] == "rate_limit_exceeded"
            assert await _closed(third) == 1013


@pytest.mark.usefixtures("no_tasks_left")
async def test_as_many_as_there_are_places_whoever_comes() -> None:
    """Of connections that come at the same moment, exactly the capacity is accepted."""

    async def enter(stack: contextlib.AsyncExitStack, served: Echo) -> bool:
        try:
            client = await stack.enter_async_context(served.socket())
        except InvalidStatus as error:
            _check_refusal(error)
            return False
        assert json.loads(await client.recv())["type"] == "session.created"
        return True

    async with echoing() as served, contextlib.AsyncExitStack() as stack:
        entered = await asyncio.gather(*(enter(stack, served) for _ in range(7)))
        assert sum(entered) == served.engine.max_open == INFO.max_sessions


@pytest.mark.usefixtures("no_tasks_left")
async def test_stopping_the_server_ends_its_sessions() -> None:
    """Clients are told that the service restarts, and every slot is given back."""
    async with contextlib.AsyncExitStack() as stack:
        async with echoing() as served:
            client = await stack.enter_async_context(served.socket())
            await client.recv()
        assert await _closed(client) == 1012


async def test_every_path_that_clients_use() -> None:
    """Base addresses with and without /v1, and Azure's, lead to the same session."""
    async with echoing() as served:
        for path in ("/v1/realtime", "/realtime", "/openai/v1/realtime", "/openai/realtime"):
            async with served.socket(f"{path}?model=m&deployment=x&api-version=y") as client:
                created = json.loads(await client.recv())
                assert created["session"]["model"] == "starter"


async def test_a_stock_client_goes_on_while_its_server_drains() -> None:
    """It gets an event that it knows, of the published shape, and its session goes on."""
    async with echoing() as served, served.realtime() as connection:
        await _until(connection, "session.created")
        served.drain.begin()
        told = (await _until(connection, "session.updated"))[-1]
        assert told["session"]["expires_at"] == served.drain.ends_at
        await connection.response.create()
        assert (await _until(connection, "response.done"))[-1]["response"]["status"] == "completed"
        with pytest.raises(InvalidStatus, match="503"):
            await served.realtime().__aenter__()


async def test_a_session_that_is_being_accepted_as_a_drain_begins_is_told_and_held() -> None:
    """Its place was taken before, so the server does not end, and says so as soon as it can."""
    async with echoing() as served:
        sent: asyncio.Queue[Event] = asyncio.Queue()
        incoming: asyncio.Queue[Event] = asyncio.Queue()
        incoming.put_nowait({"type": "websocket.connect"})

        async def send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "websocket.accept":
                served.drain.begin()
                assert served.pool.num_coming == 1, "the server waits for it"
            sent.put_nowait(dict(message))

        answering = asyncio.create_task(served.app(_scope(), incoming.get, send))
        async with asyncio.timeout(TIMEOUT_S):
            assert (await sent.get())["type"] == "websocket.accept"
            created, told = [json.loads((await sent.get())["text"]) for _ in range(2)]
            assert (created["type"], told["type"]) == ("session.created", "session.updated")
            assert told["session"]["expires_at"] == served.drain.ends_at
            incoming.put_nowait({"type": "websocket.disconnect", "code": 1000, "reason": ""})
            await answering
        with pytest.raises(InvalidStatus, match="503"):
            await served.socket()


def _scope() -> Event:
    """Return what ASGI says of a WebSocket's request."""
    return {
        "type": "websocket",
        "asgi": {"version": "3.0"},
        "scheme": "ws",
        "path": "/v1/realtime",
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1")],
        "subprotocols": [],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "state": {},
        "extensions": {},
    }


async def test_a_refusal_is_no_error_of_the_server(caplog: pytest.LogCaptureFixture) -> None:
    """It is answered by its status, and nothing is said of it at a level that wakes somebody."""
    async with echoing() as served:
        served.drain.begin()
        with pytest.raises(InvalidStatus, match="503"):
            await served.socket()
    assert not [each for each in caplog.records if each.levelname == "ERROR"]


async def test_health_readiness_and_models() -> None:
    """The plain HTTP side answers."""
    async with echoing() as served:
        assert await served.get("/healthz") == (200, {"status": "ok", "version": parley_version()})
        status, body = await served.get("/readyz")
        assert (status, body["status"], body["max_sessions"]) == (200, "ready", 2)
        status, body = await served.get("/v1/models")
        assert (status, body["data"][0]["id"]) == (200, "starter")
        status, page = await served.get("/")
        assert status == 200
        for linked in re.findall(r'(?:src|href)="([\w.]+)"', page):
            assert (await served.get(f"/{linked}"))[0] == 200, linked


async def test_api_keys() -> None:
    """A good key opens by header or subprotocol; a bad one is refused before the upgrade."""
    async with echoing(api_keys=("sk-good-sixteen-1", "sk-other-sixteen-1")) as served:
        for options in (
            {"additional_headers": {"Authorization": "Bearer sk-good-sixteen-1"}},
            {"additional_headers": {"api-key": "sk-other-sixteen-1"}},
            {"subprotocols": ["realtime", "openai-insecure-api-key.sk-good-sixteen-1"]},
        ):
            async with served.socket(**options) as client:
                assert json.loads(await client.recv())["type"] == "session.created"
                assert client.subprotocol == ("realtime" if "subprotocols" in options else None)
        for headers in ({}, {"Authorization": "Bearer sk-bad"}, {"Authorization": "Bearer ek_1"}):
            with pytest.raises(InvalidStatus) as refused:
                await served.socket(additional_headers=headers)
            assert refused.value.response.status_code == 401
            body = json.loads(refused.value.response.body or b"")
            assert body["error"]["code"] == "invalid_api_key"
        assert (await served.get("/v1/models"))[0] == 401
        assert (await served.get("/v1/models", authorization="Bearer sk-good-sixteen-1"))[0] == 200


@pytest.mark.parametrize(
    ("path", "options", "code"),
    [
        ("/v1/realtime?intent=", {}, "invalid_intent"),
        ("/v1/realtime?intent=translation", {}, "invalid_intent"),
    ],
)
async def test_requests_that_cannot_be_served(path: str, options: Any, code: str) -> None:
    """One error that says why, then close 4000 with the same code."""
    async with echoing() as served, served.socket(path, **options) as client:
        assert json.loads(await client.recv())["error"]["code"] == code
        assert await _closed(client) == 4000
        assert client.close_reason == f"invalid_request_error.{code}"


@pytest.mark.parametrize(
    "options",
    [
        {"additional_headers": {"OpenAI-Beta": "realtime=v1"}},
        {"subprotocols": ["realtime", "openai-insecure-api-key.x", "openai-beta.realtime-v1"]},
    ],
)
async def test_the_beta_shape_is_spoken_when_asked_for(options: Any) -> None:
    """By header, and by subprotocol as browsers do."""
    async with echoing() as served, served.socket(**options) as client:
        session = json.loads(await client.recv())["session"]
        assert session["modalities"] == ["audio", "text"]
        await client.send('{"type":"session.update","session":{"voice":"echo"}}')
        assert json.loads(await client.recv())["session"]["voice"] == "echo"


async def test_pages_of_other_sites_are_refused_without_keys() -> None:
    """Loopback alone does not keep a browser's other pages out."""
    async with echoing() as served:
        with pytest.raises(InvalidStatus) as refused:
            await served.socket(origin="https://example.org")
        assert refused.value.response.status_code == 403
        async with served.socket(origin="http://localhost:3000") as client:
            assert json.loads(await client.recv())["type"] == "session.created"


def test_voices_must_exist() -> None:
    """A name that maps onto no voice of the model is refused by name."""
    with pytest.raises(ConfigError, match=r"voices\.alloy: .*'oak'.*'amber', 'birch'"):
        voice_map({"alloy": "oak"}, INFO.voices, "echo")
    assert voice_map({}, INFO.voices, "echo").default == "amber"
    voices = voice_map({"echo": "birch"}, INFO.voices, "echo")
    assert list(voices.names) == ["echo", "amber", "birch"]


async def _closed(client: ClientConnection) -> int | None:
    with pytest.raises(ConnectionClosed):
        async with asyncio.timeout(TIMEOUT_S):
            await client.recv()
    return client.close_code


def test_a_server_without_its_audio_library_does_not_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It says what is missing; clients may ask for noise reduction at any time."""
    monkeypatch.setitem(sys.modules, "pywebrtc_audio", None)
    with pytest.raises(ConfigError, match="pywebrtc-audio"):
        create_app(Settings(), {"starter": [EchoEngine()]})
