"""Talk through the `openai-agents` package: `RealtimeRunner` and `RealtimeSession`."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any, Literal

from agents import function_tool, set_tracing_disabled
from agents.realtime import RealtimeAgent, RealtimeRunner, RealtimeSession
from agents.realtime.model_inputs import RealtimeModelSendRawMessage
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
    check_heard,
    check_remembered,
    check_words,
    not_applicable,
    run,
    scenario,
    speech,
)


@function_tool
def get_weather(city: Literal["paris", "rome"]) -> str:
    """Look up the weather of a city."""
    del city
    return "rain"


class Talk:
    """One session, and what the scenarios do with it."""

    def __init__(self, session: RealtimeSession) -> None:
        self.session = session
        self.inbox = Inbox()
        self.waits = Waits()

    async def listen(self) -> None:
        """Keep what comes."""
        async for event in self.session:
            self.inbox.put(event)
        self.inbox.end("the session ended")

    async def ask(self, name: str) -> str:
        """Say a recording into a microphone, and return the words of the reply."""
        mark = self.inbox.mark
        async with Microphone(self.session.send_audio) as microphone:
            ended_s = await microphone.say(name)
            words = await self.reply(mark)
            is_audio = lambda event: event.type == "audio"  # noqa: E731
            began_s = self.waits.add(self.inbox, mark, ended_s, is_audio)
            # Who speaks before it has been played talks over it, and the package truncates it.
            await asyncio.sleep(max(0.0, began_s + self.audio_s(mark) - time.monotonic()))
        return words

    async def speak(self, name: str) -> None:
        """Say a recording, faster than anybody speaks."""
        for chunk in speech(name):
            await self.session.send_audio(chunk)

    async def send(self, kind: str, **fields: Any) -> None:
        """Send an event that the package has no method for, as its documentation shows."""
        message = {"type": kind, "other_data": fields}
        await self.session.model.send_event(RealtimeModelSendRawMessage(message=message))

    def raw(self, kind: str, events: list[Any]) -> list[dict[str, Any]]:
        """Return the server's own events of a kind among those that the session reported."""
        found = []
        for event in events:
            is_raw = event.type == "raw_model_event" and event.data.type == "raw_server_event"
            if is_raw and event.data.data["type"] == kind:
                found.append(event.data.data)
        return found

    async def server_event(self, kind: str, mark: int) -> dict[str, Any]:
        """Wait for a server's event since a mark."""
        return await self.inbox.wait(
            lambda events: next(iter(self.raw(kind, events)), None), kind, mark
        )

    async def reply(self, mark: int) -> str:
        """Return the words of the next reply from the session's own history."""
        item_id = await self.inbox.wait(self._answered, "an answer", mark)
        return self.words(item_id)

    def words(self, item_id: str) -> str:
        """Return the words of an item of the history."""
        item = next(item for item in self.session._history if item.item_id == item_id)
        parts = [
            getattr(part, "transcript", None) or getattr(part, "text", None) or ""
            for part in item.content
        ]
        return " ".join(parts)

    def audio_s(self, mark: int) -> float:
        """Return the length of the audio since a mark."""
        parts = [e.audio.data for e in self.inbox.events[mark:] if e.type == "audio"]
        return sum(map(len, parts)) / (2 * RATE_HZ)

    @staticmethod
    def _answered(events: list[Any], *, after: str = "") -> str | None:
        """Find the first reply that has ended, other than one."""
        item_id = None
        for event in events:
            if event.type == "history_added" and getattr(event.item, "role", "") == "assistant":
                item_id = event.item.item_id if event.item.item_id != after else item_id
            if event.type == "agent_end" and item_id is not None:
                return str(item_id)
        return None


@contextlib.asynccontextmanager
async def connected(options: Options, **turns: Any) -> AsyncIterator[Talk]:
    """Start a session in the package's own turn detection, unless `turn_detection` is given."""
    agent = RealtimeAgent(
        name="parley", instructions="Answer in one sentence.", tools=[get_weather]
    )
    transcription = {"model": "gpt-4o-mini-transcribe"}
    settings = {
        "model_name": options.config,
        "output_modalities": ["audio"],
        "audio": {
            "input": {"transcription": transcription, **turns},
            "output": {"voice": "marin", "speed": options.speed},
        },
    }
    model_config = {
        "url": f"ws://{options.host}/v1/realtime?model={options.config}",
        "api_key": "none",
        "initial_model_settings": settings,
    }
    async with await RealtimeRunner(agent).run(model_config=model_config) as session:
        talk = Talk(session)
        ears = asyncio.create_task(talk.listen())
        try:
            yield talk
        finally:
            ears.cancel()


async def main(options: Options) -> None:
    """Hold all scenarios."""
    set_tracing_disabled(disabled=True)
    async with connected(options) as talk:
        await converse(talk, is_scripted=options.is_scripted)
    async with connected(options, turn_detection=None) as talk:
        await push_to_talk(talk)
    not_applicable("reconnect", "a RealtimeSession is one connection and replays nothing")


async def converse(talk: Talk, *, is_scripted: bool) -> None:
    """Talk, write, call a function, talk over the reply, and make mistakes."""
    inbox = talk.inbox
    async with scenario("connect and session"):
        session = (await talk.server_event("session.updated", 0))["session"]
        check(session["tools"][0]["name"] == "get_weather", f"tools {session['tools']}")
        check(session["instructions"] == "Answer in one sentence.", session["instructions"])
    async with scenario("spoken turn"):
        mark = inbox.mark
        check_words(await talk.ask(MY_NAME), "nice", "meet", "peter")
        check(talk.audio_s(mark) > 0.5, f"{talk.audio_s(mark)} s of audio")
    async with scenario("transcription"):
        user = await inbox.wait(lambda _: user_words(talk), "the user's words in the history")
        check_words(user, "name", "peter")
    async with scenario("history"):
        check_words(await talk.ask(WHAT_NAME), "peter")
        roles = [getattr(item, "role", None) for item in talk.session._history]
        check(roles == ["user", "assistant"] * 2, f"history {roles}")
    talk.waits.report(is_scripted=is_scripted)
    async with scenario("text turn"):
        mark = inbox.mark
        await talk.session.send_message("what is two plus two")
        check_words(await talk.reply(mark), "two", "plus", "four")
    async with scenario("tool call"):
        await call_function(talk, is_scripted=is_scripted)
    async with scenario("interruption"):
        await talk_over(talk, is_scripted=is_scripted)
    async with scenario("errors"):
        mark = inbox.mark
        # The package checks what it sends, so the mistake is one that only the server can see.
        await talk.send("conversation.item.delete", event_id="mine", item_id="no_such_item")
        error = (await inbox.event("error", mark)).error
        check(error.event_id == "mine", f"{error}")
        check(error.code == "item_delete_invalid_item_id", f"{error}")
        mark = inbox.mark
        await talk.session.send_message("what is two plus two")
        check_words(await talk.reply(mark), "four")


async def call_function(talk: Talk, *, is_scripted: bool) -> None:
    """Have the package run a function and tell its result."""
    mark = talk.inbox.mark
    if is_scripted:
        await talk.session.send_message("what is the weather in paris")
    else:
        # The starter was not taught to call functions, but it can be made to.
        choice = {"tool_choice": {"type": "function", "name": "get_weather"}}
        await talk.send("response.create", response=choice)
    end = await talk.inbox.event("tool_end", mark)
    check(end.output == "rain", f"the function returned {end.output!r}")
    words = await talk.reply(mark)
    check(words == "there will be rain" if is_scripted else words, f"{words!r}")


async def talk_over(talk: Talk, *, is_scripted: bool) -> None:
    """Interrupt a long reply by speech; the package stops playing and truncates."""
    inbox, mark = talk.inbox, talk.inbox.mark
    await talk.session.send_message("count from one to ten")
    audio = await inbox.event("audio", mark)
    await asyncio.sleep(HEARD_MS / 1000)
    await inbox.wait(
        lambda _: talk.audio_s(mark) * 1000 >= HEARD_MS or None, "enough to hear", mark
    )
    await talk.speak(TALK_OVER)
    await inbox.event("audio_interrupted", mark)
    truncated = await talk.server_event("conversation.item.truncated", mark)
    check(truncated["item_id"] == audio.item_id, f"truncated {truncated}")
    check(truncated["audio_end_ms"] >= HEARD_MS, f"truncated {truncated}")
    retrieved = await inbox.wait(
        lambda events: next(
            (
                event["item"]
                for event in talk.raw("conversation.item.retrieved", events)
                if event["item"]["id"] == audio.item_id
            ),
            None,
        ),
        "the truncated item",
        inbox.events.index(audio),
    )
    check_heard(retrieved["content"][0]["transcript"])
    answer = await inbox.wait(
        lambda events: Talk._answered(events, after=audio.item_id),
        "an answer to what was said over the reply",
        mark,
    )
    check_words(talk.words(answer), "two", "plus", "four")
    if is_scripted:
        mark = inbox.mark
        await talk.session.send_message("what is my name")
        check_remembered(await talk.reply(mark))


async def push_to_talk(talk: Talk) -> None:
    """Speak without turn detection and commit; asking for the reply is left to the application."""
    async with scenario("push to talk"):
        await talk.server_event("session.updated", 0)
        mark = talk.inbox.mark
        *chunks, last = speech(MY_NAME)
        for chunk in chunks:
            await talk.session.send_audio(chunk)
        await talk.session.send_audio(last, commit=True)
        await talk.send("response.create")
        check_words(await talk.reply(mark), "nice", "meet", "peter")
        started = talk.raw("input_audio_buffer.speech_started", talk.inbox.events)
        check(not started, "speech was detected nevertheless")


def user_words(talk: Talk) -> str | None:
    """Return the first words of the user in the history."""
    for item in talk.session._history:
        if getattr(item, "role", "") == "user" and item.content[0].transcript:
            return str(item.content[0].transcript)
    return None


if __name__ == "__main__":
    run(main)
