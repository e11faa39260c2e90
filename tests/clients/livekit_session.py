"""Talk through LiveKit's `openai.realtime.RealtimeModel`, in an `AgentSession`.

A microphone and a loudspeaker stand where LiveKit's room would be, which needs a media server.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

from common import (
    HEARD_MS,
    MY_NAME,
    PATIENCE_S,
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
    not_applicable,
    run,
    scenario,
)
from livekit import rtc
from livekit.agents import Agent, AgentSession, function_tool
from livekit.agents.llm import ChatMessage, FunctionCallOutput
from livekit.agents.voice.io import AudioInput, AudioOutput, AudioOutputCapabilities
from livekit.plugins import openai


class Ears(AudioInput):
    """Hands pieces of sound to the session."""

    def __init__(self) -> None:
        super().__init__(label="microphone")
        self._frames: asyncio.Queue[rtc.AudioFrame] = asyncio.Queue()

    async def append(self, pcm: bytes) -> None:
        """Send a piece of sound."""
        self._frames.put_nowait(rtc.AudioFrame(pcm, RATE_HZ, 1, len(pcm) // 2))

    async def __anext__(self) -> rtc.AudioFrame:
        return await self._frames.get()


class Loudspeaker(AudioOutput):
    """Plays in real time: a segment is what comes between two flushes.

    Args:
        inbox: where frames are put when they come.
    """

    def __init__(self, inbox: Inbox) -> None:
        super().__init__(label="loudspeaker", capabilities=AudioOutputCapabilities(pause=False))
        self._inbox = inbox
        self._segment_s = 0.0
        self._began_s = 0.0
        self._ending: asyncio.Task[None] | None = None

    @property
    def is_playing(self) -> bool:
        """Return whether a segment has not been played to its end."""
        return self._segment_s > 0.0

    @property
    def played_ms(self) -> float:
        """Return how much of the segment has been played."""
        heard_s = time.monotonic() - self._began_s if self.is_playing else 0.0
        return min(heard_s, self._segment_s) * 1000

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        """Take a frame to play."""
        if self._ending is not None:
            await self._ending
        await super().capture_frame(frame)
        if not self.is_playing:
            self._began_s = time.monotonic()
            self.on_playback_started(created_at=time.time())
        self._segment_s += frame.duration
        self._inbox.put(frame)

    def flush(self) -> None:
        """End the segment."""
        super().flush()
        if self.is_playing and self._ending is None:
            self._ending = asyncio.create_task(self._play_out())

    def clear_buffer(self) -> None:
        """Stop playing."""
        if self._ending is not None:
            self._ending.cancel()
        if self.is_playing:
            self._end(was_interrupted=True)

    async def _play_out(self) -> None:
        await asyncio.sleep(max(0.0, self._began_s + self._segment_s - time.monotonic()))
        self._end(was_interrupted=False)

    def _end(self, *, was_interrupted: bool) -> None:
        position_s = self.played_ms / 1000
        self._segment_s, self._ending = 0.0, None
        self.on_playback_finished(playback_position=position_s, interrupted=was_interrupted)


class Talk:
    """One session, and what the scenarios do with it."""

    def __init__(self, options: Options, inbox: Inbox, **model: Any) -> None:
        self.inbox = inbox
        self.waits = Waits()
        self.ears = Ears()
        self.loudspeaker = Loudspeaker(inbox)
        self.agent = Agent(instructions="Answer in one sentence.", tools=[get_weather])
        self.session: AgentSession[None] = AgentSession(
            llm=openai.realtime.RealtimeModel(
                model=options.config,
                base_url=f"http://{options.host}/v1",
                api_key="none",
                voice="marin",
                **model,
            )
        )
        for kind in ("conversation_item_added", "user_input_transcribed", "error", "close"):
            self.session.on(kind, inbox.put)
        self.session.input.audio = self.ears
        self.session.output.audio = self.loudspeaker

    async def quiet(self) -> None:
        """Wait until everything has been played."""
        async with asyncio.timeout(PATIENCE_S):
            while self.loudspeaker.is_playing:  # noqa: ASYNC110 - it plays in real time
                await asyncio.sleep(PIECE_MS / 1000)

    async def ask(self, name: str) -> str:
        """Say a recording into a microphone, and return the words of the reply."""
        await self.quiet()
        mark = self.inbox.mark
        async with Microphone(self.ears.append) as microphone:
            ended_s = await microphone.say(name)
            reply = await self.reply(mark)
        is_audio = lambda event: isinstance(event, rtc.AudioFrame)  # noqa: E731
        self.waits.add(self.inbox, mark, ended_s, is_audio)
        return reply

    async def write(self, text: str) -> str:
        """Write something and return the words of the reply."""
        await self.quiet()
        mark = self.inbox.mark
        self.session.generate_reply(user_input=text)
        return await self.reply(mark)

    async def reply(self, mark: int) -> str:
        """Return the words of the reply that the session puts into its history next."""
        return (await self.item(mark)).text_content or ""

    async def item(self, mark: int, *, is_whole: bool = True) -> ChatMessage:
        """Return the assistant's message that the session puts into its history next."""

        def added(events: list[Any]) -> ChatMessage | None:
            items = [getattr(event, "item", None) for event in events]
            messages = [item for item in items if isinstance(item, ChatMessage)]
            spoken = [
                m for m in messages if m.role == "assistant" and m.interrupted is not is_whole
            ]
            return spoken[0] if spoken else None

        return await self.inbox.wait(added, "a reply in the history", mark)


@function_tool
async def get_weather(city: str) -> str:
    """Look up the weather of a city.

    Args:
        city: paris or rome.
    """
    del city
    return "rain"


@contextlib.asynccontextmanager
async def started(options: Options, **model: Any) -> AsyncIterator[Talk]:
    """Start a session in the plugin's own turn detection unless told, and close it."""
    talk = Talk(options, Inbox(), **model)
    await talk.session.start(talk.agent, record=False)
    try:
        yield talk
    finally:
        await talk.session.aclose()


async def main(options: Options) -> None:
    """Hold all scenarios."""
    logging.disable(logging.INFO)
    async with started(options) as talk:
        await converse(talk, is_scripted=options.is_scripted)
    not_applicable("push to talk", "with the server's detection off, LiveKit needs one of its own")
    not_applicable("reconnect", "the plugin reconnects by itself, every 20 minutes")
    not_applicable("errors", "the session sends nothing that it has not checked")


async def converse(talk: Talk, *, is_scripted: bool) -> None:
    """Talk, write, call a function, and talk over the reply."""
    inbox = talk.inbox
    async with scenario("connect and session"):
        realtime = talk.session.current_agent.realtime_llm_session
        check(realtime.tools.flatten(), "no tools")
    async with scenario("spoken turn"):
        check_words(await talk.ask(MY_NAME), "nice", "meet", "peter")
        frames = [event for event in inbox.events if isinstance(event, rtc.AudioFrame)]
        seconds = sum(frame.duration for frame in frames)
        check(seconds > 0.5, f"{seconds} s of audio")
    async with scenario("transcription"):
        heard = await inbox.wait(
            lambda events: next((e for e in events if getattr(e, "is_final", False)), None),
            "the user's words",
        )
        check_words(heard.transcript, "name", "peter")
    async with scenario("history"):
        check_words(await talk.ask(WHAT_NAME), "peter")
        roles = [m.role for m in talk.session.history.messages()]
        check(roles == ["user", "assistant"] * 2, f"history {roles}")
    talk.waits.report(is_scripted=is_scripted)
    async with scenario("text turn"):
        check_words(await talk.write("what is two plus two"), "two", "plus", "four")
    async with scenario("tool call"):
        words = await talk.write("what is the weather in paris")
        outputs = [i for i in talk.session.history.items if isinstance(i, FunctionCallOutput)]
        check([each.output for each in outputs] == ["rain"], f"the function returned {outputs}")
        check(words == "there will be rain", words)
    async with scenario("interruption"):
        await talk_over(talk)
        errors = [e for e in inbox.events if getattr(e, "type", "") == "error"]
        check(not errors, f"{errors}")


async def talk_over(talk: Talk) -> None:
    """Interrupt a long reply by speech: the session stops playing, and truncates."""
    await talk.quiet()
    mark = talk.inbox.mark
    talk.session.generate_reply(user_input="count from one to ten")
    async with asyncio.timeout(PATIENCE_S):
        while talk.loudspeaker.played_ms < HEARD_MS:  # noqa: ASYNC110 - it plays in real time
            await asyncio.sleep(PIECE_MS / 1000)
    async with Microphone(talk.ears.append) as microphone:
        await microphone.say(TALK_OVER)
        count = await talk.item(mark, is_whole=False)
        check_words(await talk.reply(mark), "two", "plus", "four")
    # What was heard of it is known to LiveKit's room output only; the server knows by truncation.
    check((count.text_content or "").startswith("one"), f"another reply was cut: {count}")
    check_remembered(await talk.write("what is my name"))


if __name__ == "__main__":
    run(main)
