"""Sessions whose answers come from a text model, with the stock client and a real chat server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from openai import AsyncOpenAI

from model.messages import Engine, EngineInfo
from model.scripted.script import parse_script
from server.app import create_app
from server.config.settings import Settings
from server.errors import ConfigError
from tests.fakes.scripted import scripted_engine
from tests.server.delegate.chat import Chat, chatting
from tests.server.fakes import EchoEngine
from tests.server.mcp.serving import serving as serving_mcp
from tests.server.mcp.serving import weather_server
from tests.server.serving import serving
from tests.test_mcp import Talk

_TIMEOUT_S = 60.0
_SCRIPT = """
pace: {real_time_factor: 0, first_output_ms: 0, words_per_minute: 600}
reply:
  - {when: {user: hello}, say: hello there}
  - {when: {user: what do you know}, say: '{history}'}
  - {say: sorry i do not know that}
"""
_HELLO: Any = {
    "type": "message",
    "role": "user",
    "content": [{"type": "input_text", "text": "hello"}],
}
_WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


class Asked(Talk):
    """Talk to a server, beside the text model that it asks.

    Attributes:
        chat: the text model.
        metrics: returns what the server counts.
    """

    chat: Chat
    metrics: Any

    async def response(self) -> Any:
        """Return the next response that is done."""
        return (await self.until("response.done")).response


@asynccontextmanager
async def asking(engine: Engine | None = None, **settings: Any) -> AsyncIterator[Asked]:
    """Connect with the stock client to a server that has a text model."""
    script = parse_script(_SCRIPT, "test")
    engine = engine or scripted_engine(script, max_sessions=3, ahead_ms=60_000)
    async with chatting() as (chat, url):
        delegate = {"url": url, "model": "big", **settings.pop("delegate", {})}
        given = Settings.model_validate({"delegate": delegate, **settings})
        async with serving(engine, given) as served:
            base_url = served.url.replace("ws://", "http://") + "/v1"
            client = AsyncOpenAI(api_key="any", base_url=base_url)
            async with client, client.realtime.connect(model="scripted") as connection:
                talk = Asked(connection)
                talk.chat, talk.metrics = chat, lambda: served.get("/metrics")
                yield talk


async def test_what_the_model_does_not_know_is_asked_and_spoken() -> None:
    """The client hears the answer alone; the engine remembers it; tokens are counted."""
    async with asking() as talk:
        await talk.say("who wrote faust")
        done = await talk.response()
        (message,) = done.output
        assert message.content[0].transcript == "i heard user say who wrote faust"
        assert done.status == "completed"
        # 7 words recited and 7 tokens written; 700 ms are 9 frames.
        assert done.usage.output_token_details.text_tokens == 7 + 7
        assert done.usage.output_token_details.audio_tokens == 9
        # The engine reads its 3 words a second time, and 3 of the 11 tokens were known elsewhere.
        assert done.usage.input_token_details.text_tokens == 3 + 11
        assert done.usage.input_token_details.cached_tokens == 3 + 3
        audio = [each for each in talk.seen if each.type == "response.output_audio.delta"]
        assert audio
        await talk.say("hello")
        (message,) = (await talk.response()).output
        assert message.content[0].transcript == "hello there"
        assert len(talk.chat.asked) == 1
        await talk.say("what do you know")
        (message,) = (await talk.response()).output
        assert "assistant: i heard user say who wrote faust;" in message.content[0].transcript
        assert "sorry" not in message.content[0].transcript
        _, text = await talk.metrics()
        assert 'parley_delegate_requests_total{outcome="answered"} 1.0' in text
        assert 'parley_delegate_tokens_total{direction="output"} 7.0' in text


async def test_where_text_is_wanted_the_answer_is_text() -> None:
    """Word by word, as it comes."""
    async with asking() as talk:
        await talk.offer()
        await talk.say("who wrote faust")
        assert await talk.words() == "i heard user say who wrote faust"
        deltas = [each.delta for each in talk.seen if each.type == "response.output_text.delta"]
        assert deltas == ["i", " heard", " user", " say", " who", " wrote", " faust"]


async def test_a_model_of_its_own_words_says_that_it_does_not_know_and_the_answer_is_shown() -> (
    None
):
    """Two messages of one response: speech, and text."""
    async with asking(EchoEngine(), delegate={"phrases": ["you said"]}) as talk:
        await talk.say("faust")
        done = await talk.response()
        spoken, shown = done.output
        assert spoken.content[0].transcript.startswith("you said")
        assert spoken.content[0].type == "output_audio"
        assert shown.content[0].type == "output_text"
        assert shown.content[0].text == "i heard user say faust"
        assert {spoken.status, shown.status, done.status} == {"completed"}


async def test_a_client_says_who_answers() -> None:
    """For the session, or for a response."""
    async with asking() as talk:
        session: Any = {"type": "realtime", "output_modalities": ["text"], "delegate": "always"}
        await talk._connection.session.update(session=session)
        updated = await talk.until("session.updated")
        assert updated.session.delegate == "always"
        await talk.say("hello")
        assert await talk.words() == "i heard user say hello"
        response: Any = {"delegate": "never"}
        await talk._connection.response.create(response=response)
        assert await talk.words() == "hello there"


async def test_functions_are_called_as_ever() -> None:
    """The text model's call is the session's, and what it returns goes back."""
    async with asking(delegate={"answers": "always"}) as talk:
        await talk.offer(_WEATHER)
        await talk.say("weather")
        (called,) = (await talk.response()).output
        assert (called.name, called.arguments) == ("get_weather", '{"city":"oslo"}')
        await talk.add(
            {"type": "function_call_output", "call_id": called.call_id, "output": "rain"}
        )
        await talk.ask()
        assert await talk.words() == "i heard tool say rain"
        roles = [each["role"] for each in talk.chat.asked[-1]["messages"]]
        assert roles == ["system", "user", "assistant", "tool"]


async def test_arguments_that_do_not_fit_are_no_call() -> None:
    """The served model answers in its place."""
    async with asking(delegate={"answers": "always"}) as talk:
        await talk.offer(_WEATHER)
        await talk.say("wrong")
        assert await talk.words() == "sorry i do not know that"


async def test_calls_of_servers_need_a_yes() -> None:
    """An MCP tool that the text model calls is asked for as if the served model had called it."""
    async with serving_mcp(weather_server().streamable_http_app()) as url:
        servers = {"maps": {"url": f"{url}/mcp"}}
        async with asking(delegate={"answers": "always"}, mcp={"servers": servers}) as talk:
            await talk.offer({"type": "mcp", "server_label": "maps"})
            await talk.until("mcp_list_tools.completed")
            await talk.say("weather")
            asked = await talk.until("conversation.item.done", type="mcp_approval_request")
            await talk.response()
            answer = {"type": "mcp_approval_response", "approval_request_id": asked.item.id}
            await talk.add({**answer, "approve": True})
            await talk.until("conversation.item.done", type="mcp_call")
            await talk.ask()
            assert await talk.words() == "i heard tool say rain in oslo"


@pytest.mark.parametrize("how", ["slow", "stuck"])
async def test_a_cancelled_response_leaves_the_text_model(how: str) -> None:
    """The request is broken off, and the session goes on."""
    async with asking(delegate={"answers": "always"}) as talk:
        await talk.offer()
        await talk.say(how)
        async with asyncio.timeout(_TIMEOUT_S):
            await talk.chat.is_asked.wait()
            if how == "stuck":
                await talk.until("response.output_text.delta")
            await talk._connection.response.cancel()
            assert (await talk.response()).status == "cancelled"
            await talk.chat.gone.wait()
        await talk.say("hello")
        assert await talk.words() == "i heard user say hello"


async def test_a_session_that_ends_leaves_the_text_model() -> None:
    """Nobody waits for an answer that nobody gets."""
    async with asking(delegate={"answers": "always"}) as talk:
        await talk.say("stuck")
        async with asyncio.timeout(_TIMEOUT_S):
            await talk.chat.is_asked.wait()
            await talk._connection.close()
            await talk.chat.gone.wait()


@pytest.mark.parametrize(
    "how", ["refuse", "redirect", "html", "garbage", "slow", "filtered", "much", "stuck"]
)
async def test_a_bad_text_model_hurts_nobody(how: str) -> None:
    """Before its first word, the served model answers; after that, the response has failed."""
    # Only what must run out of time is short of it: a busy machine may be slow as well.
    limits = {"slow": {"first_word_s": 0.5}, "stuck": {"timeout_s": 1.0}}.get(how, {})
    delegate = {"answers": "always", "max_bytes": 20_000, **limits}
    async with asking(delegate=delegate) as talk:
        await talk.offer()
        await talk.say(how)
        done = await talk.response()
        if how in ("much", "stuck"):
            assert done.status == "failed"
            assert done.status_details.error.code == "response_failed"
        else:
            assert done.output[0].content[0].text == "sorry i do not know that"
        never: Any = {"delegate": "never"}
        await talk.add(_HELLO)
        await talk._connection.response.create(response=never)
        assert await talk.words() == "hello there"
        assert not any("secret-detail" in event.model_dump_json() for event in talk.seen)


async def test_without_a_text_model_nobody_can_ask_for_it() -> None:
    """The client is told so, and nothing has changed."""
    engine = scripted_engine(parse_script(_SCRIPT, "test"), max_sessions=1, ahead_ms=1_000)
    async with serving(engine, Settings()) as served:
        client = AsyncOpenAI(api_key="any", base_url=f"http://127.0.0.1:{served.port}/v1")
        async with client, client.realtime.connect(model="scripted") as connection:
            session: Any = {"type": "realtime", "delegate": "always"}
            await connection.session.update(session=session)
            await connection.recv()
            error = await connection.recv()
            assert error.type == "error"
            assert error.error.code == "unsupported_parameter"
            assert error.error.param == "session.delegate"


class _Duplex(EchoEngine):
    """Says that it listens and speaks at once."""

    @property
    def info(self) -> EngineInfo:
        """Describe it."""
        return replace(super().info, is_duplex=True)


def test_where_nobody_writes_down_what_is_said_nobody_can_be_asked() -> None:
    """The server does not start, and says why."""
    settings = Settings.model_validate({"delegate": {"url": "http://127.0.0.1:1/v1"}})
    with pytest.raises(ConfigError, match=r"delegate\.url: 'starter' listens and speaks at once"):
        create_app(settings, {"starter": [_Duplex()]})
