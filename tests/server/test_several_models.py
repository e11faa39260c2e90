"""Several models in one server, each in processes of its own, over real sockets."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from model.assemble.weights import save_starter
from model.engine.process import ProcessEngine
from model.messages import Engine
from model.text import Tokenizer
from server.app import create_app
from server.config.models import EngineSettings, ServedSettings
from server.config.server import ServerSettings
from server.config.settings import Settings
from server.config.webrtc import WebRtcSettings
from server.engine import make_engines
from server.errors import ConfigError
from server.session.pool import EnginePool
from server.webrtc.network import Network
from tests.fakes.tiny import make_codec, make_lm
from tests.server.serving import Served, serving
from tests.server.session.pairs import covering
from tests.server.webrtc.caller import Caller

TIMEOUT_S = 120.0
KEY, SECRET = "sk-sixteen-or-more-1", "a-secret-of-more-than-32-characters"
HEADERS = {"authorization": f"Bearer {KEY}"}
Event = dict[str, Any]

pytestmark = pytest.mark.usefixtures("no_tasks_left")


def _script(directory: Path, name: str, reply: str) -> Path:
    """Write a script that says who it is, and what it was told before."""
    path = directory / f"{name}.yaml"
    path.write_text(f"reply:\n  - when: {{user: hello}}\n    say: {reply} here\n  - say: go on\n")
    return path


@dataclass(frozen=True)
class World:
    """A server with models, and their engines."""

    served: Served
    engines: Mapping[str, Sequence[Engine]]

    def pool(self, name: str) -> EnginePool:
        """Return the engines of a model."""
        pool: EnginePool = self.served.app.state.gateway.models.named(name).pool
        return pool

    def kill(self, name: str, number: int) -> None:
        """Kill the process of an engine."""
        engine = self.engines[name][number]
        assert isinstance(engine, ProcessEngine)
        assert engine.process_id is not None
        os.kill(engine.process_id, signal.SIGKILL)

    async def until_status(self, path: str, status: str) -> tuple[int, Event]:
        """Wait for what `/readyz` says; returns its HTTP status and body."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                code, body = await self.served.get(path)
                if body["status"] == status:
                    return code, body

    def connect(self, query: str, key: str = KEY) -> connect:
        """Open a session."""
        headers = {"authorization": f"Bearer {key}"}
        url = f"{self.served.url}/v1/realtime{query}"
        return connect(url, additional_headers=headers, max_queue=None)


@asynccontextmanager
async def _world(settings: Settings, network: Network | None = None) -> AsyncIterator[World]:
    engines = make_engines(settings)
    async with serving(engines, settings, network) as served:
        yield World(served, engines)


def _scripted(directory: Path, **engine: Any) -> ServedSettings:
    """Return a model that follows a script, in processes of their own."""
    script = _script(directory, "script", str(engine.pop("reply", "somebody")))
    return ServedSettings(
        script=script,
        aliases=engine.pop("aliases", ()),
        voices=engine.pop("voices", {}),
        engine=EngineSettings(**{"max_sessions": 2, **engine}),
    )


async def _until(client: ClientConnection, kind: str, *, failing: str = "error") -> Event:
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            event: Event = json.loads(await client.recv())
            if event["type"] == kind:
                return event
            assert event["type"] != failing, event


async def _ask(client: ClientConnection) -> str:
    """Type a turn, and return the words of the answer."""
    for event in (
        {
            "type": "conversation.item.create",
            "item": {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "hello"}],
            },
        },
        {"type": "response.create", "response": {"output_modalities": ["text"]}},
    ):
        await client.send(json.dumps(event))
    words: str = (await _until(client, "response.output_text.done"))["text"]
    await _until(client, "response.done")
    return words


async def test_two_models_and_the_end_of_one(tmp_path: Path) -> None:
    """Each answers by its names; when one's engine dies, the other's callers notice nothing."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    settings = Settings(
        models={
            "one": _scripted(tmp_path / "one", reply="one", aliases=("gpt-realtime",)),
            "two": _scripted(tmp_path / "two", reply="two", voices={"robin": "cedar"}),
        }
    )
    async with _world(settings) as world:
        _, listed = await world.served.get("/v1/models")
        assert [each["id"] for each in listed["data"]] == ["one", "two"]
        assert listed["data"][0]["aliases"] == ["gpt-realtime"]
        assert listed["data"][1]["voices"][0] == "robin"
        assert "robin" not in listed["data"][0]["voices"]
        assert (await world.served.get("/v1/models/gpt-realtime"))[1]["id"] == "gpt-realtime"
        assert (await world.served.get("/v1/models/three"))[0] == 404
        with pytest.raises(InvalidStatus) as refused:
            await world.connect("?model=gpt-4o")
        assert refused.value.response.status_code == 404

        async with (
            world.connect("?model=gpt-realtime") as first,
            world.connect("?model=two") as second,
            world.connect("?model=two") as last,
        ):
            assert (await _until(first, "session.created"))["session"]["model"] == "gpt-realtime"
            created = (await _until(second, "session.created"))["session"]
            assert (created["model"], created["audio"]["output"]["voice"]) == ("two", "robin")
            await _until(last, "session.created")
            with pytest.raises(InvalidStatus) as full:
                await world.connect("?model=two")
            assert full.value.response.status_code == 503
            assert (await _ask(first), await _ask(second)) == ("one here", "two here")

            world.kill("one", 0)
            code, body = await world.until_status("/readyz", "degraded")
            assert code == 200
            assert body["models"]["two"]["status"] == "ready"
            assert (await world.served.get("/readyz?model=two"))[1]["status"] == "ready"
            assert (await world.served.get("/readyz?model=three"))[0] == 404
            assert await _ask(second) == "two here"
            error = (await _until(first, "error", failing=""))["error"]
            assert error["code"] == "engine_failed"
            code, _ = await world.until_status("/readyz?model=one", "ready")
            assert code == 200
            assert await _ask(first) == "one here"
            text = (await world.served.get("/metrics"))[1]
            assert 'parley_engine_losses_total{engine="0",model="one"} 1.0' in text
            assert 'parley_engine_losses_total{engine="0",model="two"} 0.0' in text
            assert 'parley_model_sessions{model="two"} 2.0' in text


async def test_sessions_of_a_lost_engine_go_on_in_the_other(tmp_path: Path) -> None:
    """One model on two devices: the freest is chosen, and a caller survives its engine."""
    settings = Settings(models={"twice": _scripted(tmp_path, devices=("cpu", "cpu"))})
    async with (
        _world(settings) as world,
        world.connect("") as first,
        world.connect("") as second,
    ):
        pool = world.pool("twice")
        assert [link.num_sessions for link in pool.links] == [1, 1]
        assert [await _ask(client) for client in (first, second)] == ["somebody here"] * 2
        world.kill("twice", 0)
        error = (await _until(first, "error", failing=""))["error"]
        assert error["code"] == "engine_failed"
        assert await _ask(first) == "somebody here"
        assert [link.num_sessions for link in pool.links] == [0, 2]
        assert await _ask(second) == "somebody here"
        await world.until_status("/readyz", "ready")
        async with world.connect("") as third:
            await _until(third, "session.created")
            assert [link.num_sessions for link in pool.links] == [1, 2]
        text = (await world.served.get("/metrics"))[1]
        assert 'parley_session_moves_total{model="twice"} 1.0' in text
        assert 'parley_engine_slots{engine="1",model="twice"} 2.0' in text


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write weights of a starter that makes noise."""
    directory = tmp_path_factory.mktemp("weights") / "starter"
    lm, codec = make_lm(), make_codec()
    tokenizer = Tokenizer.train(["hello there", "hello world"] * 9, 60)
    save_starter(directory, lm=lm, codec=codec, tokenizer=tokenizer, voices=("anna", "ben"))
    return directory


VOICES = {"script": "marin", "starter": "anna", "moshi": "moshi"}
ALIASES = {"script": "gpt-realtime", "starter": "gpt-realtime-mini", "moshi": "gpt-4o-realtime"}
FEATURES: Mapping[str, tuple[Any, ...]] = {
    "model": ("script", "starter", "moshi"),
    "is_alias": (False, True),
    "naming": ("address", "deployment", "key"),
    "key": ("plain", "ephemeral", "bound"),
    "kind": ("realtime", "transcription"),
    "transport": ("websocket", "webrtc"),
    "shape": ("ga", "beta"),
}


async def _minted(world: World, session: Event, *, is_bound: bool) -> str:
    url = f"http://127.0.0.1:{world.served.port}/v1/realtime/client_secrets"
    body = {"session": session, "bound": is_bound}
    async with httpx.AsyncClient(headers=HEADERS, timeout=TIMEOUT_S) as client:
        answer = (await client.post(url, json=body)).json()
    value: str = answer["value"]
    return value


async def _try(world: World, case: Mapping[str, Any]) -> None:
    """Open a session as a case wants it, and see that it has the right model."""
    name = ALIASES[case["model"]] if case["is_alias"] else case["model"]
    query, key = f"?model={name}", KEY
    if case["naming"] == "deployment" and case["transport"] == "websocket":
        query = f"?deployment={name}"
    session: Event = {"type": case["kind"]}
    if case["key"] != "plain":
        if case["naming"] == "key" and case["kind"] == "realtime":
            # What the address says besides does not count.
            session["model"], query = name, "?model=script"
        key = await _minted(world, session, is_bound=case["key"] == "bound")
    elif case["kind"] == "transcription":
        query += "&intent=transcription"
    refused = case["model"] == "moshi" and case["kind"] == "transcription"
    if case["transport"] == "webrtc":
        await _call(world, case, name, query, key)
        return
    if case["shape"] == "beta":
        key_header = {"authorization": f"Bearer {key}", "openai-beta": "realtime=v1"}
        client = connect(f"{world.served.url}/v1/realtime{query}", additional_headers=key_header)
    else:
        client = world.connect(query, key)
    async with client as socket:
        event = json.loads(await socket.recv())
        if refused:
            assert "does not write down" in event["error"]["message"], (case, event)
            return
        assert event["type"].endswith("session.created"), (case, event)
        if case["kind"] == "realtime":
            _check(case, name, event["session"])


async def _call(world: World, case: Mapping[str, Any], name: str, query: str, key: str) -> None:
    if case["kind"] == "transcription" and (case["key"] == "plain" or case["model"] == "moshi"):
        return  # a bare offer has no kind but its key's, and that model none but the other
    path = "/v1/realtime" if case["shape"] == "beta" else "/v1/realtime/calls"
    caller = Caller(world.served)
    try:
        await caller.call(f"{path}{query}", authorization=f"Bearer {key}")
        kind = "transcription_session" if _is_beta_transcription(case) else "session"
        event = await caller.until(f"{kind}.created")
        if case["kind"] == "realtime":
            _check(case, name, event["session"])
    finally:
        await caller.pc.close()
        for task in caller.tasks:
            task.cancel()
        await asyncio.gather(*caller.tasks, return_exceptions=True)


def _is_beta_transcription(case: Mapping[str, Any]) -> bool:
    return case["shape"] == "beta" and case["kind"] == "transcription"


def _check(case: Mapping[str, Any], name: str, session: Event) -> None:
    voice = session["voice"] if case["shape"] == "beta" else session["audio"]["output"]["voice"]
    assert (session["model"], voice) == (name, VOICES[case["model"]]), case


@pytest.mark.slow
@pytest.mark.parametrize("secrets", [(), (SECRET,)], ids=["keys kept", "keys signed"])
async def test_any_two_ways_to_a_model_go_together(
    tmp_path: Path, weights: Path, secrets: tuple[str, ...]
) -> None:
    """A script, a starter and one that listens and speaks at once, side by side."""
    models = {
        "script": _scripted(tmp_path, voices={"marin": "cedar"}),
        "starter": ServedSettings(dir=weights),
        "moshi": ServedSettings(twin="moshi", engine=EngineSettings(max_sessions=2)),
    }
    models = {
        name: each.model_copy(update={"aliases": (ALIASES[name],)}) for name, each in models.items()
    }
    settings = Settings(
        server=ServerSettings(api_keys=(KEY,), key_secrets=secrets),
        models=models,
        webrtc=WebRtcSettings(port=0),
    )
    network = Network(settings.webrtc, "127.0.0.1", 0)
    async with _world(settings, network) as world:
        for values in covering(FEATURES):
            await _try(world, dict(zip(FEATURES, values, strict=True)))
        async with asyncio.timeout(TIMEOUT_S):
            await world.served.app.state.calls.until_none()
        _, body = await world.served.get("/readyz")
        assert (body["status"], body["sessions"]) == ("ready", 0)


def test_a_voice_of_another_model_is_told_with_the_model(tmp_path: Path) -> None:
    """It is a mistake of the configuration."""
    settings = Settings(models={"one": _scripted(tmp_path, voices={"alloy": "nobody"})})
    engines = make_engines(settings)
    try:
        with pytest.raises(ConfigError, match=r"voices\.alloy: the model 'one' has no voice"):
            create_app(settings, engines)
    finally:
        for each in engines["one"]:
            each.stop()


def test_one_engine_that_cannot_be_had_stops_the_others(tmp_path: Path) -> None:
    """None is left behind."""
    missing = ServedSettings(dir=tmp_path / "missing")
    settings = Settings(models={"one": _scripted(tmp_path), "two": missing})
    with pytest.raises(ConfigError, match="does not exist"):
        make_engines(settings)


def test_a_starter_runs_on_cpu_only(weights: Path) -> None:
    """Two devices of a GPU host would both be the CPU, and nobody would know."""
    engine = EngineSettings(devices=("cuda:0", "cuda:1"))
    settings = Settings(models={"starter": ServedSettings(dir=weights, engine=engine)})
    with pytest.raises(ConfigError, match="on cpu only, got 'cuda:0'"):
        make_engines(settings)
