"""Talk through vision-agents' `openai.Realtime`: a call by WebRTC, with a camera, from Python.

It offers by `openai`'s `realtime.calls.create`, and the call itself is stock aiortc's.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from common import (
    HEARD_MS,
    MY_NAME,
    PIECE_MS,
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
    kind_of,
    not_applicable,
    run,
    scenario,
)
from getstream.video.rtc.track_util import PcmData
from openai import AsyncOpenAI
from vision_agents.core.edge.types import Participant
from vision_agents.plugins.openai import Realtime

USER = Participant(original=None, user_id="peter", id="peter")
# Of 16 bits. What is quieter is the silence of a call.
AUDIBLE = 600
SOUND = "RealtimeAudioOutput"
RATE_PER_S = 1000 // PIECE_MS  # of a call's frames


class Talk:
    """One call, and what the scenarios do with it."""

    def __init__(self, options: Options) -> None:
        self.inbox = Inbox()
        self.waits = Waits()
        client = AsyncOpenAI(api_key="none", base_url=f"http://{options.host}/v1")
        self.realtime = Realtime(model=options.config, client=client)
        self.realtime.set_instructions("Answer in one sentence.")
        self.returned: list[str] = []

        @self.realtime.register_function(description="Look up the weather of a city.")
        async def get_weather(city: str) -> str:
            self.returned.append(city)
            return "rain"

    async def listen(self) -> None:
        """Keep what comes."""
        async for event in self.realtime.output:
            self.inbox.put(event)

    async def append(self, pcm: bytes) -> None:
        """Send sound."""
        samples = np.frombuffer(pcm, dtype=np.int16)
        sound = PcmData(sample_rate=RATE_HZ, format="s16", samples=samples)
        await self.realtime.process_audio(sound, USER)

    async def ask(self, name: str) -> str:
        """Say a recording, and return the words of the reply when it has been heard."""
        mark = self.inbox.mark
        async with Microphone(self.append) as microphone:
            ended_s = await microphone.say(name)
            words = await self.reply(mark)
            self.waits.add(self.inbox, mark, ended_s, _is_audible)
            await self.silence(mark)
        return words

    async def write(self, text: str) -> str:
        """Write something, and return the words of the reply when it has been heard."""
        mark = self.inbox.mark
        await self.send(text)
        words = await self.reply(mark)
        await self.silence(mark)
        return words

    async def send(self, text: str) -> None:
        """Write something."""
        async for _ in self.realtime.simple_response(text):
            pass

    async def reply(self, mark: int) -> str:
        """Return the words of the next reply, which are told when all of it has been made."""
        await self.inbox.event("RealtimeAgentSpeechStarted", mark)
        return str((await self.inbox.event("RealtimeAgentTranscript", mark)).text)

    async def silence(self, mark: int) -> None:
        """Wait until a reply has been heard to its end."""

        def is_over(events: list[Any]) -> bool | None:
            sounds = [_is_audible(event) for event in events if kind_of(event) == SOUND]
            return (any(sounds) and not any(sounds[-RATE_PER_S // 4 :])) or None

        await self.inbox.wait(is_over, "the end of the sound", mark)

    def audio_s(self, mark: int) -> float:
        """Return how long something could be heard since a mark."""
        return sum(map(_is_audible, self.inbox.events[mark:])) / RATE_PER_S


def _is_audible(event: Any) -> bool:
    return kind_of(event) == SOUND and bool(np.abs(event.data.samples).max(initial=0) > AUDIBLE)


@contextlib.asynccontextmanager
async def calling(options: Options) -> AsyncIterator[Talk]:
    """Call, and hang up in the end."""
    talk = Talk(options)
    ears = asyncio.create_task(talk.listen())
    try:
        yield talk
    finally:
        ears.cancel()
        await talk.realtime.close()


async def main(options: Options) -> None:
    """Hold all scenarios in one call."""
    async with calling(options) as talk:
        await converse(talk, is_scripted=options.is_scripted)
    not_applicable("push to talk", "the package turns turn detection on, and has no way to commit")
    not_applicable("errors", "the package sends nothing that is wrong")
    not_applicable("reconnect", "the package has no way to replay a conversation")


async def converse(talk: Talk, *, is_scripted: bool) -> None:
    """Talk, write, have a function called, and talk over a reply."""
    inbox = talk.inbox
    async with scenario("connect and session"):
        await talk.realtime.connect()
        async with asyncio.timeout(30):
            while talk.realtime.current_session is None:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.05)
        tools = talk.realtime.current_session.tools
        check(tools and tools[0].name == "get_weather", f"tools {tools}")
    async with scenario("spoken turn"):
        mark = inbox.mark
        check_words(await talk.ask(MY_NAME), "nice", "meet", "peter")
        check(talk.audio_s(mark) > 0.5, f"{talk.audio_s(mark)} s of sound")
    async with scenario("transcription"):
        said = (await inbox.event("RealtimeUserTranscript")).text
        check_words(said, "name", "peter")
    async with scenario("history"):
        check_words(await talk.ask(WHAT_NAME), "peter")
    talk.waits.report(is_scripted=is_scripted)
    async with scenario("text turn"):
        check_words(await talk.write("what is two plus two"), "two", "plus", "four")
    async with scenario("tool call"):
        reply = await talk.write("what is the weather in paris")
        check(talk.returned == ["paris"], f"called with {talk.returned}")
        check("rain" in reply, reply)
    async with scenario("interruption"):
        mark = inbox.mark
        async with Microphone(talk.append) as microphone:
            await talk.send("count from one to ten")
            await inbox.wait(
                lambda _: talk.audio_s(mark) * 1000 >= HEARD_MS or None, "enough to hear", mark
            )
            await microphone.say(TALK_OVER)
            ended = await inbox.event("RealtimeAgentSpeechEnded", mark)
            check(ended.interrupted, "the reply went on")
            answer = await inbox.wait(
                lambda events: next((e.text for e in events if _answers(e)), None),
                "an answer to what was said over the reply",
                mark,
            )
            check_words(answer, "two", "plus", "four")
        check_remembered(await talk.write("what is my name"))


def _answers(event: Any) -> bool:
    return kind_of(event) == "RealtimeAgentTranscript" and "plus" in event.text


if __name__ == "__main__":
    run(main)
