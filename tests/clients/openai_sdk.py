"""Talk through the `openai` package: GA, beta, and both of them as to Azure."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from common import (
    HEARD_MS,
    MY_NAME,
    RATE_HZ,
    TALK_OVER,
    WEATHER,
    WHAT_NAME,
    Inbox,
    Microphone,
    Options,
    Waits,
    check,
    check_heard,
    check_remembered,
    check_words,
    run,
    scenario,
    speech,
)
from openai import AsyncAzureOpenAI, AsyncOpenAI

TRANSCRIBED = "conversation.item.input_audio_transcription.completed"
TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "Look up the weather of a city.",
    "parameters": WEATHER,
}


@dataclass(frozen=True)
class Dialect:
    """Where the two shapes of the API differ."""

    is_beta: bool
    speed: float

    @property
    def audio_delta(self) -> str:
        """Return the type of the reply's audio."""
        return "response.audio.delta" if self.is_beta else "response.output_audio.delta"

    @property
    def item_added(self) -> str:
        """Return the type that acknowledges an item."""
        return "conversation.item.created" if self.is_beta else "conversation.item.added"

    @property
    def said_part(self) -> str:
        """Return the type of a replayed reply's words."""
        return "text" if self.is_beta else "output_text"

    def session(self, turn_detection: dict[str, Any] | None) -> dict[str, Any]:
        """Return a session with transcripts and a function."""
        if self.is_beta:
            return {
                "modalities": ["audio", "text"],
                "voice": "alloy",
                "speed": self.speed,
                "input_audio_transcription": {"model": "whisper-1"},
                "turn_detection": turn_detection,
                "tools": [TOOL],
            }
        return {
            "type": "realtime",
            "output_modalities": ["audio"],
            "audio": {
                "input": {
                    "transcription": {"model": "gpt-4o-mini-transcribe"},
                    "turn_detection": turn_detection,
                },
                "output": {"voice": "marin", "speed": self.speed},
            },
            "tools": [TOOL],
        }


class Talk:
    """One connection, and what the scenarios do with it."""

    def __init__(self, connection: Any, dialect: Dialect) -> None:
        self.connection = connection
        self.dialect = dialect
        self.inbox = Inbox()
        self.waits = Waits()

    async def listen(self) -> None:
        """Keep what comes."""
        async for event in self.connection:
            self.inbox.put(event)
        self.inbox.end("the connection closed")

    async def set_up(self, turn_detection: dict[str, Any] | None) -> Any:
        """Configure the session; returns it."""
        await self.connection.session.update(session=self.dialect.session(turn_detection))
        return (await self.inbox.event("session.updated")).session

    async def append(self, pcm: bytes) -> None:
        """Send sound."""
        await self.connection.input_audio_buffer.append(audio=base64.b64encode(pcm).decode())

    async def speak(self, name: str) -> None:
        """Say a recording, faster than anybody speaks."""
        for chunk in speech(name):
            await self.append(chunk)

    async def ask(self, name: str) -> Any:
        """Say a recording into a microphone, and return the response when it is done."""
        mark = self.inbox.mark
        async with Microphone(self.append) as microphone:
            ended_s = await microphone.say(name)
            response = await self.response(mark)
        audio = self.dialect.audio_delta
        self.waits.add(self.inbox, mark, ended_s, lambda event: event.type == audio)
        return response

    async def write(self, text: str, **response: Any) -> Any:
        """Write something and return the response."""
        mark = self.inbox.mark
        part = {"type": "input_text", "text": text}
        item = {"type": "message", "role": "user", "content": [part]}
        await self.connection.conversation.item.create(item=item)
        return await self.respond(mark, **response)

    async def respond(self, mark: int, **response: Any) -> Any:
        """Ask for a response and return it when it is done."""
        create = self.connection.response.create
        await (create(response=response) if response else create())
        return await self.response(mark)

    async def response(self, mark: int) -> Any:
        """Return the response that is done next."""
        done = await self.inbox.event("response.done", mark)
        check(done.response.status == "completed", f"response {done.response.status_details}")
        check(done.response.usage.total_tokens > 0, "a response without usage")
        return done.response

    async def transcript(self, mark: int) -> str:
        """Return what the next spoken turn was understood as."""
        return str((await self.inbox.event(TRANSCRIBED, mark)).transcript)

    def audio_s(self, mark: int) -> float:
        """Return the length of the audio since a mark."""
        deltas = [e for e in self.inbox.events[mark:] if e.type == self.dialect.audio_delta]
        return sum(len(base64.b64decode(e.delta)) for e in deltas) / (2 * RATE_HZ)


def said(response: Any) -> str:
    """Return the words of a response."""
    parts = [part for item in response.output for part in item.content or []]
    return " ".join(filter(None, (part.transcript or part.text for part in parts)))


@contextlib.asynccontextmanager
async def connected(options: Options) -> AsyncIterator[Talk]:
    """Connect, and disconnect in the end."""
    is_beta = options.dialect == "beta"
    client: AsyncOpenAI
    if options.is_azure:
        # An address below /openai, the model as a deployment, and a date that tells the dialect.
        client = AsyncAzureOpenAI(
            api_key="none",
            azure_endpoint=f"http://{options.host}",
            azure_deployment=options.config,
            api_version="2025-04-01-preview" if is_beta else "2025-08-28",
            websocket_base_url=f"ws://{options.host}/openai",
        )
    else:
        client = AsyncOpenAI(
            api_key="none",
            base_url=f"http://{options.host}/v1",
            websocket_base_url=f"ws://{options.host}/v1",
        )
    realtime = client.beta.realtime if is_beta else client.realtime
    async with realtime.connect(model=options.config) as connection:
        talk = Talk(connection, Dialect(is_beta, options.speed))
        ears = asyncio.create_task(talk.listen())
        try:
            yield talk
        finally:
            ears.cancel()


async def main(options: Options) -> None:
    """Hold all scenarios: one long conversation, and a short one each where it must be new."""
    async with connected(options) as talk:
        await converse(talk, is_scripted=options.is_scripted)
    async with connected(options) as talk:
        await push_to_talk(talk)
    async with connected(options) as talk:
        await replay(talk, is_scripted=options.is_scripted)


async def converse(talk: Talk, *, is_scripted: bool) -> None:
    """Talk, write, call a function, talk over the reply, and make mistakes."""
    inbox, connection = talk.inbox, talk.connection
    async with scenario("connect and session"):
        session = await talk.set_up({"type": "server_vad", "silence_duration_ms": 500})
        check(inbox.events[0].type == "session.created", f"first came {inbox.events[0].type}")
        check(session.id.startswith("sess_"), f"session id {session.id}")
        check(session.tools[0].name == "get_weather", f"tools {session.tools}")
    async with scenario("spoken turn"):
        mark = inbox.mark
        response = await talk.ask(MY_NAME)
        check_words(said(response), "nice", "meet", "peter")
        check(talk.audio_s(mark) > 0.5, f"{talk.audio_s(mark)} s of audio")
    async with scenario("transcription"):
        check_words(await talk.transcript(mark), "name", "peter")
    async with scenario("history"):
        check_words(said(await talk.ask(WHAT_NAME)), "peter")
    talk.waits.report(is_scripted=is_scripted)
    async with scenario("text turn"):
        kind = {"modalities": ["text"]} if talk.dialect.is_beta else {"output_modalities": ["text"]}
        response = await talk.write("what is two plus two", **kind)
        check(said(response) == "two plus two is four", said(response))
        check(response.output[0].content[0].text, "no text part")
    async with scenario("tool call"):
        await call_function(talk, is_scripted=is_scripted)
    async with scenario("interruption"):
        await talk_over(talk, is_scripted=is_scripted)
    async with scenario("errors"):
        mark = inbox.mark
        await connection.send({"type": "no.such.event", "event_id": "mine"})
        error = (await inbox.event("error", mark)).error
        check(error.event_id == "mine" and error.code == "invalid_value", f"{error}")
        mark = inbox.mark
        await connection.response.cancel()
        error = (await inbox.event("error", mark)).error
        check(error.code == "response_cancel_not_active", f"{error}")
        check_words(said(await talk.write("what is two plus two")), "four")


async def call_function(talk: Talk, *, is_scripted: bool) -> None:
    """Have a function called, return what it returns, and hear about it."""
    # The starter was not taught to call functions, but it can be made to.
    must = {} if is_scripted else {"tool_choice": {"type": "function", "name": "get_weather"}}
    mark = talk.inbox.mark
    response = await talk.write("what is the weather in paris", **must)
    call = next((item for item in response.output if item.type == "function_call"), None)
    check(call is not None, f"no call in {response.output}")
    assert call is not None
    done = await talk.inbox.event("response.function_call_arguments.done", mark)
    check(done.call_id == call.call_id and done.arguments == call.arguments, f"{done}")
    check(call.arguments in ('{"city":"paris"}', '{"city":"rome"}'), call.arguments)
    mark = talk.inbox.mark
    item = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    await talk.connection.conversation.item.create(item=item)
    answer = said(await talk.respond(mark))
    if is_scripted:
        check(answer == "there will be rain", answer)
    check(answer, "no words after the function's output")


async def talk_over(talk: Talk, *, is_scripted: bool) -> None:
    """Interrupt a long reply by speech, say how much was heard, and ask what is remembered."""
    inbox, connection, mark = talk.inbox, talk.connection, talk.inbox.mark
    part = {"type": "input_text", "text": "count from one to ten"}
    item = {"type": "message", "role": "user", "content": [part]}
    await connection.conversation.item.create(item=item)
    await connection.response.create()
    audio = await inbox.event(talk.dialect.audio_delta, mark)
    await asyncio.sleep(HEARD_MS / 1000)
    await inbox.wait(
        lambda _: talk.audio_s(mark) * 1000 >= HEARD_MS or None, "enough to hear", mark
    )
    speaking = asyncio.create_task(talk.speak(TALK_OVER))
    await inbox.event("input_audio_buffer.speech_started", mark)
    await connection.conversation.item.truncate(
        item_id=audio.item_id, content_index=0, audio_end_ms=HEARD_MS
    )
    truncated = await inbox.event("conversation.item.truncated", mark)
    check(truncated.audio_end_ms == HEARD_MS, f"{truncated}")
    cut = (await inbox.event("response.done", mark)).response
    check(cut.status in ("cancelled", "completed"), f"{cut.status}")
    await speaking
    answer = await inbox.wait(
        lambda events: next(
            (e for e in events if e.type == "response.done" and e.response.id != cut.id), None
        ),
        "an answer to what was said over the reply",
        mark,
    )
    check_words(said(answer.response), "two", "plus", "four")
    await connection.conversation.item.retrieve(item_id=audio.item_id)
    kept = (await inbox.event("conversation.item.retrieved", mark)).item.content[0].transcript
    check_heard(kept)
    if is_scripted:
        check(cut.status == "cancelled", f"the reply was {cut.status}")
        check(cut.status_details.reason == "turn_detected", f"{cut.status_details}")
        check_remembered(said(await talk.write("what is my name")))


async def push_to_talk(talk: Talk) -> None:
    """Speak without turn detection: the client says when a turn begins and ends."""
    async with scenario("push to talk"):
        session = await talk.set_up(None)
        detection = (
            session.turn_detection if talk.dialect.is_beta else (session.audio.input.turn_detection)
        )
        check(detection is None, f"turn detection is {detection}")
        await talk.connection.input_audio_buffer.clear()
        await talk.inbox.event("input_audio_buffer.cleared")
        await talk.speak(MY_NAME)
        mark = talk.inbox.mark
        await talk.connection.input_audio_buffer.commit()
        await talk.inbox.event("input_audio_buffer.committed", mark)
        check_words(said(await talk.respond(mark)), "nice", "meet", "peter")
        kinds = {event.type for event in talk.inbox.events}
        check("input_audio_buffer.speech_started" not in kinds, "speech was detected nevertheless")


async def replay(talk: Talk, *, is_scripted: bool) -> None:
    """Take an earlier conversation up again on a new connection."""
    async with scenario("reconnect"):
        await talk.set_up({"type": "server_vad"})
        created = talk.connection.conversation.item.create
        told = {"type": "input_text", "text": "my name is peter"}
        reply = {"type": talk.dialect.said_part, "text": "nice to meet you peter"}
        message = {"type": "message", "role": "user", "id": "old_1", "content": [told]}
        await created(item=message)
        message = {"type": "message", "role": "assistant", "id": "old_2", "content": [reply]}
        await created(item=message)
        call = {"name": "get_weather", "call_id": "call_old", "arguments": '{"city":"rome"}'}
        if is_scripted:
            await created(item={"type": "function_call", "id": "old_3", **call})
            output = {"type": "function_call_output", "call_id": "call_old", "output": "sun"}
            await created(item={**output, "id": "old_4"})
        response = await talk.write("what is my name")
        check_words(said(response), "peter")
        items = [e.item.id for e in talk.inbox.events if e.type == talk.dialect.item_added]
        check(items[:2] == ["old_1", "old_2"], f"items {items}")
        if is_scripted:
            check("sun" in said(response), f"the replayed call is forgotten: {said(response)!r}")


if __name__ == "__main__":
    run(main)
