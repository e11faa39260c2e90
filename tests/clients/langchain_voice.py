"""Talk as LangChain's voice agent does: LangChain tools over the beta Realtime API.

Its published sample, `react-voice-agent`, is a program and no package (PyPI has no
`langchain-openai-voice`). It connects with `websockets` and the beta header, and sends one
`session.update` with instructions, transcription, voice and tools, whose parameters it takes from
`tool.args`; it leaves the rest to the server's defaults. A microphone appends;
`response.audio.delta` goes to the loudspeaker, which `speech_started` silences. It runs a tool when
`response.function_call_arguments.done` names it, gives the result the call's id as the item's own,
and asks for a response. `VoiceAgent` is written by us from that.
"""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, Literal

from common import (
    HEARD_MS,
    MY_NAME,
    RATE_HZ,
    TALK_OVER,
    WHAT_NAME,
    Inbox,
    Microphone,
    Options,
    Waits,
    check,
    check_remembered,
    check_words,
    not_applicable,
    run,
    scenario,
)
from langchain_core.tools import BaseTool, tool
from websockets.asyncio.client import ClientConnection, connect

Event = dict[str, Any]


@tool
def get_weather(city: Literal["paris", "rome"]) -> str:
    """Look up the weather of a city."""
    del city
    return "rain"


class VoiceAgent:
    """One connection, and what the sample does with it."""

    def __init__(self, connection: ClientConnection, tools: list[BaseTool]) -> None:
        self.inbox = Inbox()
        self.waits = Waits()
        self._connection = connection
        self._tools = {each.name: each for each in tools}

    async def send(self, event: Event) -> None:
        """Send an event."""
        await self._connection.send(json.dumps(event))

    async def append(self, pcm: bytes) -> None:
        """Send sound."""
        await self.send(
            {"type": "input_audio_buffer.append", "audio": base64.b64encode(pcm).decode()}
        )

    async def set_up(self) -> None:
        """Say what the agent is."""
        tools = [
            {
                "type": "function",
                "name": each.name,
                "description": each.description,
                "parameters": {"type": "object", "properties": each.args},
            }
            for each in self._tools.values()
        ]
        session = {
            "instructions": "Answer in one sentence.",
            "input_audio_transcription": {"model": "whisper-1"},
            "voice": "alloy",
            "tools": tools,
        }
        await self.send({"type": "session.update", "session": session})

    async def listen(self) -> None:
        """Keep what comes, and run the tools that are called."""
        async for text in self._connection:
            event = json.loads(text)
            self.inbox.put(Came(event))
            if event["type"] == "response.function_call_arguments.done":
                await self._call(event)
        self.inbox.end("the connection closed")

    async def _call(self, event: Event) -> None:
        result = await self._tools[event["name"]].ainvoke(json.loads(event["arguments"]))
        output = {
            "id": event["call_id"],
            "call_id": event["call_id"],
            "type": "function_call_output",
            "output": json.dumps(result),
        }
        await self.send({"type": "conversation.item.create", "item": output})
        await self.send({"type": "response.create", "response": {}})

    async def ask(self, name: str) -> str:
        """Say a recording into a microphone, and return the words of the reply."""
        mark = self.inbox.mark
        async with Microphone(self.append) as microphone:
            ended_s = await microphone.say(name)
            words = await self.reply(mark)
        self.waits.add(self.inbox, mark, ended_s, lambda e: e.type == "response.audio.delta")
        return words

    async def write(self, text: str) -> str:
        """Write something and return the words of the reply, as the sample's page does not."""
        mark = self.inbox.mark
        part = {"type": "input_text", "text": text}
        item = {"type": "message", "role": "user", "content": [part]}
        await self.send({"type": "conversation.item.create", "item": item})
        await self.send({"type": "response.create", "response": {}})
        return await self.reply(mark)

    async def reply(self, mark: int) -> str:
        """Return the words of the next reply."""
        done = await self.inbox.event("response.audio_transcript.done", mark)
        await self.inbox.event("response.done", self.inbox.events.index(done))
        return str(done.event["transcript"])

    def audio_ms(self, mark: int) -> float:
        """Return how much of replies has come since a mark."""
        deltas = [e for e in self.inbox.events[mark:] if e.type == "response.audio.delta"]
        return sum(len(base64.b64decode(e.event["delta"])) for e in deltas) / (2 * RATE_HZ / 1000)


class Came:
    """An event of the server."""

    def __init__(self, event: Event) -> None:
        self.event = event
        self.type: str = event["type"]


@contextlib.asynccontextmanager
async def connected(options: Options) -> AsyncIterator[VoiceAgent]:
    """Connect, and disconnect in the end."""
    url = f"ws://{options.host}/v1/realtime?model={options.config}"
    headers = {"Authorization": "Bearer none", "OpenAI-Beta": "realtime=v1"}
    async with connect(url, additional_headers=headers) as connection:
        agent = VoiceAgent(connection, [get_weather])
        ears = asyncio.create_task(agent.listen())
        try:
            yield agent
        finally:
            ears.cancel()


async def main(options: Options) -> None:
    """Hold all scenarios."""
    async with connected(options) as agent:
        await converse(agent, is_scripted=options.is_scripted)
    not_applicable("push to talk", "the sample leaves turns to the server")
    not_applicable("reconnect", "the sample keeps no history to replay")
    not_applicable("errors", "the sample prints them")


async def converse(agent: VoiceAgent, *, is_scripted: bool) -> None:
    """Talk, write, call a tool, and talk over the reply."""
    inbox = agent.inbox
    async with scenario("connect and session"):
        await agent.set_up()
        session = (await inbox.event("session.updated")).event["session"]
        check(session["tools"][0]["name"] == "get_weather", f"tools {session['tools']}")
        check(session["turn_detection"]["type"] == "server_vad", f"{session['turn_detection']}")
    async with scenario("spoken turn"):
        check_words(await agent.ask(MY_NAME), "nice", "meet", "peter")
        check(agent.audio_ms(0) > 500, f"{agent.audio_ms(0)} ms of audio")
    async with scenario("transcription"):
        kind = "conversation.item.input_audio_transcription.completed"
        check_words((await inbox.event(kind)).event["transcript"], "name", "peter")
    async with scenario("history"):
        check_words(await agent.ask(WHAT_NAME), "peter")
    agent.waits.report(is_scripted=is_scripted)
    async with scenario("text turn"):
        check_words(await agent.write("what is two plus two"), "two", "plus", "four")
    async with scenario("tool call"):
        words = await agent.write("what is the weather in paris")
        check(words == "there will be rain", words)
    async with scenario("interruption"):
        await talk_over(agent)
        errors = [e.event for e in inbox.events if e.type == "error"]
        check(not errors, f"{errors}")


async def talk_over(agent: VoiceAgent) -> None:
    """Interrupt a long reply by speech; the page silences its loudspeaker, and tells nobody."""
    inbox, mark = agent.inbox, agent.inbox.mark
    writing = asyncio.create_task(agent.write("count from one to ten"))
    await inbox.event("response.audio.delta", mark)
    await asyncio.sleep(HEARD_MS / 1000)
    async with Microphone(agent.append) as microphone:
        await microphone.say(TALK_OVER)
        await writing
        later = inbox.events.index(await inbox.event("response.done", mark)) + 1
        check_words(await agent.reply(later), "two", "plus", "four")
    await inbox.event("input_audio_buffer.speech_started", mark)
    check_remembered(await agent.write("what is my name"))


if __name__ == "__main__":
    run(main)
