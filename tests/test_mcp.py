"""Sessions on the scripted engine use a real MCP server, and survive bad ones."""

import asyncio
import base64
import json
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection

from model.scripted.script import parse_script
from server.client.local import local_server
from server.config.settings import Settings
from tests.fakes.scripted import scripted_engine
from tests.server.mcp.serving import answering, weather_server
from tests.server.mcp.serving import serving as serving_mcp
from tests.server.serving import serving

ROOT = Path(__file__).resolve().parents[1]
_TIMEOUT_S = 60.0
_SCRIPT = """
pace: {real_time_factor: 0, first_output_ms: 0}
reply:
  - {when: {output: '(?P<words>.+)'}, say: 'it said {words}'}
  - {when: {user: weather}, call: {name: get_weather, arguments: {city: oslo}}}
  - {when: {user: delete}, call: {name: delete_city, arguments: {city: oslo}}}
  - {when: {user: break}, call: {name: break_down}}
  - {say: 'hello'}
"""


class Talk:
    """Talk to a server as an application does."""

    def __init__(self, connection: AsyncRealtimeConnection) -> None:
        self._connection = connection
        self.seen: list[Any] = []

    async def until(self, kind: str, **fields: str) -> Any:
        """Return the next event of a kind, whose item has some fields."""
        async with asyncio.timeout(_TIMEOUT_S):
            while True:
                event = await self._connection.recv()
                self.seen.append(event)
                assert event.type != "error", event
                item = getattr(event, "item", None)
                if event.type == kind and all(
                    getattr(item, key) == value for key, value in fields.items()
                ):
                    return event

    async def offer(self, *tools: Any) -> None:
        """Offer tools to the model."""
        session: Any = {"type": "realtime", "output_modalities": ["text"], "tools": [*tools]}
        await self._connection.session.update(session=session)

    async def say(self, text: str) -> None:
        """Type a turn and ask for an answer."""
        content = [{"type": "input_text", "text": text}]
        await self.add({"type": "message", "role": "user", "content": content})
        await self.ask()

    async def add(self, item: Any) -> None:
        """Add an item."""
        await self._connection.conversation.item.create(item=item)

    async def ask(self) -> None:
        """Ask for a response."""
        await self._connection.response.create()

    async def words(self) -> str:
        """Return what the next message says."""
        event = await self.until("response.output_text.done")
        await self.until("response.done")
        return str(event.text)


@asynccontextmanager
async def talking(**settings: Any) -> AsyncIterator[Talk]:
    """Connect with the stock client to a server that follows the script."""
    engine = scripted_engine(parse_script(_SCRIPT, "test"), max_sessions=2, ahead_ms=60_000)
    async with serving(engine, Settings.model_validate(settings)) as served:
        client = AsyncOpenAI(api_key="any", base_url=served.url.replace("ws://", "http://") + "/v1")
        async with client, client.realtime.connect(model="scripted") as connection:
            yield Talk(connection)


async def test_listing_call_approval_and_denial(tmp_path: Path) -> None:
    """The whole way, with a server that the operator names; the audit log has it all."""
    audit = tmp_path / "audit.jsonl"
    async with serving_mcp(weather_server().streamable_http_app()) as url:
        servers = {"maps": {"url": f"{url}/mcp", "authorization": "operators-secret"}}
        settings = {"mcp": {"servers": servers}, "approvals": {"audit_file": str(audit)}}
        async with talking(**settings) as talk:
            never = {"never": {"tool_names": ["get_weather", "break_down"]}}
            await talk.offer({"type": "mcp", "server_label": "maps", "require_approval": never})
            listed = await talk.until("conversation.item.done", type="mcp_list_tools")
            assert [tool.name for tool in listed.item.tools] == [
                *("get_weather", "delete_city", "break_down")
            ]
            await talk.say("weather")
            called = await talk.until("conversation.item.done", type="mcp_call")
            assert (called.item.output, called.item.error) == ("rain in oslo", None)
            await talk.ask()
            assert await talk.words() == "it said rain in oslo"

            await talk.say("delete")
            asked = await talk.until("conversation.item.done", type="mcp_approval_request")
            await talk.until("response.done")
            answer = {"type": "mcp_approval_response", "approval_request_id": asked.item.id}
            await talk.add({**answer, "approve": True})
            called = await talk.until("conversation.item.done", type="mcp_call")
            assert called.item.output == "oslo is gone, False"
            assert called.item.approval_request_id == asked.item.id

            await talk.say("delete")
            asked = await talk.until("conversation.item.done", type="mcp_approval_request")
            await talk.until("response.done")
            answer = {"type": "mcp_approval_response", "approval_request_id": asked.item.id}
            await talk.add({**answer, "approve": False, "reason": "We need it."})
            await talk.ask()
            assert await talk.words() == "it said The call was not approved. We need it."

            await talk.say("break")
            failed = await talk.until("conversation.item.done", type="mcp_call")
            assert failed.item.error.type == "tool_execution_error"
            assert not any("operators-secret" in event.model_dump_json() for event in talk.seen)
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [(line["name"], line["what"]) for line in lines] == [
        ("get_weather", "called"),
        ("get_weather", "completed"),
        ("delete_city", "approval requested"),
        ("delete_city", "approved"),
        ("delete_city", "called"),
        ("delete_city", "completed"),
        ("delete_city", "approval requested"),
        ("delete_city", "denied"),
        ("break_down", "called"),
        ("break_down", "failed"),
    ]


async def test_the_operators_policy_holds_what_the_client_would_not() -> None:
    """A destructive tool is asked for, although the client wants no approvals."""
    async with serving_mcp(weather_server().streamable_http_app()) as url:
        settings = {
            "mcp": {"servers": {"maps": {"url": f"{url}/mcp"}}},
            "approvals": {"rules": [{"server": "m*", "annotation": "destructive"}]},
        }
        async with talking(**settings) as talk:
            await talk.offer({"type": "mcp", "server_label": "maps", "require_approval": "never"})
            await talk.until("mcp_list_tools.completed")
            await talk.say("weather")
            await talk.until("response.mcp_call.completed")
            await talk.say("delete")
            await talk.until("conversation.item.done", type="mcp_approval_request")


@pytest.mark.parametrize("how", ["private", "redirect", "slow", "much", "wrong", "unknown"])
async def test_a_bad_server_hurts_nobody(how: str, capfd: pytest.CaptureFixture[str]) -> None:
    """It yields a failed listing; nothing leaks, and the session lives."""
    inside: list[str] = []

    async def private(_method: str, path: str, _body: bytes) -> Any:
        inside.append(path)
        return 200, {}, b"instance-role"

    async with answering(private) as metadata:

        async def bad(_method: str, _path: str, _body: bytes) -> Any:
            match how:
                case "redirect":
                    return 307, {"location": metadata}, b""
                case "slow":
                    await asyncio.sleep(60)
                case "much":
                    return 200, {"content-type": "application/json"}, b'"' + b"x" * 100_000
                case _:
                    pass
            return 200, {"content-type": "text/html"}, b"<html></html>"

        async with answering(bad) as url:
            mcp: Any = {"list_timeout_s": 1.0 if how == "slow" else 30, "max_bytes": 10_000}
            tool: Any = {"type": "mcp", "server_label": "maps", "authorization": "clients-secret"}
            if how == "private":
                mcp["allowed"] = [metadata]
                tool["server_url"] = metadata
            elif how != "unknown":
                mcp["servers"] = {"maps": {"url": url}}
            async with talking(mcp=mcp) as talk:
                await talk.offer(tool)
                await talk.until("mcp_list_tools.failed")
                listed = await talk.until("conversation.item.done", type="mcp_list_tools")
                assert listed.item.tools == []
                await talk.say("hi")
                assert await talk.words() == "hello"
                assert not any("secret" in event.model_dump_json() for event in talk.seen)
                assert not any("instance-role" in event.model_dump_json() for event in talk.seen)
    assert not inside
    assert "secret" not in "".join(capfd.readouterr())


def _recorded(name: str, silence_s: float = 0.0) -> str:
    """Return a recording as an append carries it, and silence after it."""
    with wave.open(str(ROOT / "tests" / "assets" / f"{name}.wav")) as file:
        pcm = file.readframes(file.getnframes()) + bytes(2 * int(silence_s * file.getframerate()))
    return base64.b64encode(pcm).decode()


@pytest.mark.parametrize("approve", [True, False])
async def test_a_spoken_turn_calls_a_servers_tool_and_is_answered_aloud(*, approve: bool) -> None:
    """From the sound of the user to the sound of what came of it, with a yes or a no between."""
    script = "hear: [delete the city]\n" + _SCRIPT
    engine = scripted_engine(parse_script(script, "test"), max_sessions=2, ahead_ms=60_000)
    async with serving_mcp(weather_server().streamable_http_app()) as url:
        settings = Settings.model_validate({"mcp": {"servers": {"maps": {"url": f"{url}/mcp"}}}})
        async with serving(engine, settings) as served:
            base_url = served.url.replace("ws://", "http://") + "/v1"
            async with (
                AsyncOpenAI(api_key="any", base_url=base_url) as client,
                client.realtime.connect(model="scripted") as connection,
            ):
                talk = Talk(connection)
                tool: Any = {"type": "mcp", "server_label": "maps"}
                await connection.session.update(session={"type": "realtime", "tools": [tool]})
                await talk.until("mcp_list_tools.completed")
                await connection.input_audio_buffer.append(audio=_recorded("two_plus_two", 1.0))
                asked = await talk.until("conversation.item.done", type="mcp_approval_request")
                assert (asked.item.name, asked.item.arguments) == ("delete_city", '{"city":"oslo"}')
                await talk.until("response.done")
                answer = {"type": "mcp_approval_response", "approval_request_id": asked.item.id}
                await talk.add({**answer, "approve": approve})
                if approve:
                    await talk.until("conversation.item.done", type="mcp_call")
                await talk.ask()
                await talk.until("response.output_audio.delta")
                said = await talk.until("response.output_audio_transcript.done")
                told = "oslo is gone, False" if approve else "The call was not approved."
                assert said.transcript == f"it said {told}"
                assert (await talk.until("response.done")).response.status == "completed"


@pytest.mark.slow
async def test_the_starter_calls_a_servers_tool_by_voice() -> None:
    """A spoken question, a call of the tool that is demanded, and a spoken answer after it."""
    audio = _recorded("capital_of_france")
    async with serving_mcp(weather_server().streamable_http_app()) as url:
        servers = f"mcp.servers={{maps: {{url: '{url}/mcp'}}}}"
        with local_server(ROOT / "configs" / "starter.yaml", [servers]) as starter:
            base_url = starter.replace("ws://", "http://") + "/v1"
            async with (
                AsyncOpenAI(api_key="any", base_url=base_url) as client,
                client.realtime.connect(model="starter") as connection,
            ):
                talk = Talk(connection)
                tool: Any = {"type": "mcp", "server_label": "maps", "require_approval": "never"}
                detection: Any = {"input": {"turn_detection": None}}
                session: Any = {"type": "realtime", "tools": [tool], "audio": detection}
                await connection.session.update(session=session)
                await talk.until("mcp_list_tools.completed")
                await connection.input_audio_buffer.append(audio=audio)
                await connection.input_audio_buffer.commit()
                choice = {"type": "mcp", "server_label": "maps", "name": "get_weather"}
                response: Any = {"tool_choice": choice}
                await connection.response.create(response=response)
                called = await talk.until("conversation.item.done", type="mcp_call")
                assert called.item.output.startswith("rain in ")
                await connection.response.create(response={"tool_choice": "none"})
                await talk.until("response.output_audio.delta")
                done = await talk.until("response.done")
                assert done.response.status == "completed"


async def test_leaving_while_a_call_goes_on() -> None:
    """A call of a session that has ended is given up, and its server sees that."""
    gone = asyncio.Event()
    server = weather_server()
    began = asyncio.Event()

    @server.tool(structured_output=False)
    async def wait() -> str:
        """Wait."""
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            gone.set()
        return "late"

    script = _SCRIPT.replace("reply:", "reply:\n  - {when: {user: wait}, call: {name: wait}}")
    engine = scripted_engine(parse_script(script, "test"), max_sessions=2, ahead_ms=60_000)
    async with serving_mcp(server.streamable_http_app()) as url:
        settings = Settings.model_validate({"mcp": {"servers": {"maps": {"url": f"{url}/mcp"}}}})
        async with serving(engine, settings) as served:
            base_url = served.url.replace("ws://", "http://") + "/v1"
            async with AsyncOpenAI(api_key="any", base_url=base_url) as client:
                async with client.realtime.connect(model="scripted") as connection:
                    talk = Talk(connection)
                    tool = {"type": "mcp", "server_label": "maps", "require_approval": "never"}
                    await talk.offer(tool)
                    await talk.until("mcp_list_tools.completed")
                    await talk.say("wait")
                    await talk.until("response.mcp_call.in_progress")
                    async with asyncio.timeout(_TIMEOUT_S):
                        await began.wait()
                async with asyncio.timeout(_TIMEOUT_S):
                    await gone.wait()
