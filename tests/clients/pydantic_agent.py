"""Talk through pydantic-ai's realtime sessions: `Agent.realtime(model).session()`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Literal

from common import (
    HEARD_MS,
    MY_NAME,
    PATIENCE_S,
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
    speech,
)
from pydantic_ai import Agent
from pydantic_ai.messages import (
    FunctionToolResultEvent,
    ModelMessage,
    RealtimeInputSpeechStartEvent,
    RealtimeSessionErrorEvent,
    SpeechPart,
)
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.realtime import RealtimeSession
from pydantic_ai.realtime.openai import OpenAIRealtimeModel, OpenAIRealtimeModelSettings

PIECE_S = 0.02


class Audio:
    """A piece of the reply's sound, as it came from the session."""

    def __init__(self, pcm: bytes) -> None:
        self.pcm = pcm


class Talk:
    """One session with a loudspeaker, and what the scenarios do with it."""

    def __init__(self, session: RealtimeSession) -> None:
        self.session = session
        self.inbox = Inbox()
        self.waits = Waits()
        self.played_bytes = 0
        self._playing = bytearray()

    async def listen(self) -> None:
        """Keep what is told, and stop the loudspeaker when the user begins to speak."""
        async for event in self.session:
            self.inbox.put(event)
            if isinstance(event, RealtimeInputSpeechStartEvent):
                self._playing.clear()
                await self.session.interrupt(played_bytes=self.played_bytes)
        self.inbox.end("the session ended")

    async def hear(self) -> None:
        """Keep the sound for the loudspeaker."""
        async for pcm in self.session.stream_audio():
            self.inbox.put(Audio(pcm))
            self._playing += pcm

    async def play(self) -> None:
        """Play in real time."""
        piece = int(RATE_HZ * 2 * PIECE_S)
        while True:
            self.played_bytes += len(self._playing[:piece])
            del self._playing[:piece]
            await asyncio.sleep(PIECE_S)

    async def quiet(self) -> None:
        """Wait until everything has been played."""
        async with asyncio.timeout(PATIENCE_S):
            while self._playing:  # noqa: ASYNC110 - it plays in real time
                await asyncio.sleep(PIECE_S)

    async def ask(self, name: str) -> str:
        """Say a recording into a microphone, and return the words of the reply."""
        await self.quiet()
        mark = self.inbox.mark
        async with Microphone(self.session.send_audio) as microphone:
            ended_s = await microphone.say(name)
            words = await self.reply(mark)
        self.waits.add(self.inbox, mark, ended_s, lambda event: isinstance(event, Audio))
        return words

    async def write(self, text: str) -> str:
        """Write something and return the words of the reply."""
        mark = self.inbox.mark
        await self.session.send(text)
        return await self.reply(mark)

    async def reply(self, mark: int) -> str:
        """Return the words of the reply that ends next, from the session's own history."""
        await self.inbox.event("RealtimeTurnCompleteEvent", mark)
        return self.said("assistant")[-1]

    def said(self, speaker: str) -> list[str]:
        """Return what somebody said, turn by turn, from the session's own history."""
        return [part.transcript or "" for part in parts(self.session.all_messages(), speaker)]


def parts(messages: list[ModelMessage], speaker: str) -> list[SpeechPart]:
    """Return what a speaker said."""
    everything = [part for message in messages for part in message.parts]
    return [p for p in everything if isinstance(p, SpeechPart) and p.speaker == speaker]


async def get_weather(city: Literal["paris", "rome"]) -> str:
    """Look up the weather of a city."""
    del city
    return "rain"


@contextlib.asynccontextmanager
async def connected(
    options: Options, history: list[ModelMessage] | None = None, **settings: Any
) -> AsyncIterator[Talk]:
    """Start a session in the package's own turn detection unless told, and end it."""
    provider = OpenAIProvider(base_url=f"http://{options.host}/v1", api_key="none")
    model = OpenAIRealtimeModel(options.config, provider=provider)
    agent = Agent(instructions="Answer in one sentence.", tools=[get_weather])
    bound = agent.realtime(
        model,
        model_settings=OpenAIRealtimeModelSettings(openai_voice="marin", **settings),
        message_history=history,
    )
    async with bound.session() as session:
        talk = Talk(session)
        tasks = [asyncio.create_task(run()) for run in (talk.listen, talk.hear, talk.play)]
        try:
            yield talk
        finally:
            for task in tasks:
                task.cancel()


async def main(options: Options) -> None:
    """Hold all scenarios."""
    async with scenario("connect and session"), connected(options) as talk:
        pass  # it waits for `session.updated`, and raises when the server refuses something
    async with connected(options) as talk:
        await converse(talk, is_scripted=options.is_scripted)
        history = talk.session.all_messages()[:4]
    async with connected(options, turn_detection=False) as talk:
        await push_to_talk(talk)
    async with scenario("reconnect"), connected(options, history) as talk:
        check_words(await talk.write("what is my name"), "peter")


async def converse(talk: Talk, *, is_scripted: bool) -> None:
    """Talk, write, call a function, and talk over the reply."""
    inbox = talk.inbox
    async with scenario("spoken turn"):
        check_words(await talk.ask(MY_NAME), "nice", "meet", "peter")
        seconds = sum(len(e.pcm) for e in inbox.events if isinstance(e, Audio)) / (2 * RATE_HZ)
        check(seconds > 0.5, f"{seconds} s of audio")
    async with scenario("transcription"):
        words = await inbox.wait(lambda _: next(iter(talk.said("user")), None), "the user's words")
        check_words(words, "name", "peter")
    async with scenario("history"):
        check_words(await talk.ask(WHAT_NAME), "peter")
        kinds = [message.kind for message in talk.session.all_messages()]
        check(kinds == ["request", "response"] * 2, f"history {kinds}")
    talk.waits.report(is_scripted=is_scripted)
    async with scenario("text turn"):
        check_words(await talk.write("what is two plus two"), "two", "plus", "four")
    async with scenario("tool call"):
        mark = inbox.mark
        words = await talk.write("what is the weather in paris")
        result = next(e for e in inbox.events[mark:] if isinstance(e, FunctionToolResultEvent))
        check(result.part.content == "rain", f"the function returned {result.part}")
        check(words == "there will be rain", words)
    async with scenario("interruption"):
        await talk_over(talk)
        errors = [event for event in inbox.events if isinstance(event, RealtimeSessionErrorEvent)]
        check(not errors, f"{errors}")
    not_applicable("errors", "the session sends nothing that it has not checked")


async def talk_over(talk: Talk) -> None:
    """Interrupt a long reply by speech; the session cancels and truncates at what was played."""
    await talk.quiet()
    inbox, mark, played = talk.inbox, talk.inbox.mark, talk.played_bytes
    before = len(talk.said("assistant"))
    await talk.session.send("count from one to ten")
    async with asyncio.timeout(PATIENCE_S):
        while talk.played_bytes - played < HEARD_MS * RATE_HZ * 2 / 1000:  # noqa: ASYNC110
            await asyncio.sleep(PIECE_S)
    async with Microphone(talk.session.send_audio) as microphone:
        await microphone.say(TALK_OVER)
        count, answer = await inbox.wait(
            lambda _: _whole(talk.said("assistant")[before:]),
            "an answer to what was said over the reply",
            mark,
        )
    check_words(answer, "two", "plus", "four")
    # Its own history keeps the whole transcript and says at which millisecond it was cut.
    check(count.startswith("one"), f"the reply that was talked over is {count!r}")
    check_remembered(await talk.write("what is my name"))


def _whole(turns: list[str]) -> list[str] | None:
    """Return the count and the answer, when the answer has been said."""
    return turns if len(turns) == 2 and "four" in turns[1] else None


async def push_to_talk(talk: Talk) -> None:
    """Speak without turn detection: commit, and ask for the reply."""
    async with scenario("push to talk"):
        for chunk in speech(MY_NAME):
            await talk.session.send_audio(chunk)
        await talk.session.commit_audio()
        mark = talk.inbox.mark
        await talk.session.create_response()
        check_words(await talk.reply(mark), "nice", "meet", "peter")


if __name__ == "__main__":
    run(main)
