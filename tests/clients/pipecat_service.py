"""Talk through pipecat's `OpenAIRealtimeLLMService`, in a pipeline such as its examples build."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

from common import (
    HEARD_MS,
    MY_NAME,
    PATIENCE_S,
    RATE_HZ,
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
from loguru import logger
from pipecat.adapters.llm.schemas.function_schema import FunctionSchema
from pipecat.adapters.llm.schemas.tools_schema import ToolsSchema
from pipecat.frames.frames import (
    InputAudioRawFrame,
    InterruptionFrame,
    LLMRunFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.observers.base_observer import BaseObserver, FramePushed
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.services.llm_service import FunctionCallParams
from pipecat.services.openai.realtime.events import (
    AudioConfiguration,
    AudioInput,
    AudioOutput,
    InputAudioTranscription,
    SessionProperties,
    TurnDetection,
)
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.workers.runner import WorkerRunner

TOOL = FunctionSchema(
    name="get_weather",
    description="Look up the weather of a city.",
    properties=WEATHER["properties"],
    required=WEATHER["required"],
)


class Watch(BaseObserver):
    """Keeps every frame that the service pushes."""

    def __init__(self, service: OpenAIRealtimeLLMService, inbox: Inbox) -> None:
        super().__init__()
        self._service = service
        self._inbox = inbox

    async def on_push_frame(self, data: FramePushed) -> None:
        """Keep a frame."""
        if data.source is self._service:
            self._inbox.put(data.frame)


class Talk:
    """One running pipeline."""

    def __init__(self, options: Options, text: str | None, turn_detection: Any) -> None:
        self.inbox = Inbox()
        self.waits = Waits()
        audio = AudioConfiguration(
            input=AudioInput(
                transcription=InputAudioTranscription(model="gpt-4o-mini-transcribe"),
                turn_detection=turn_detection,
            ),
            output=AudioOutput(voice="marin"),
        )
        self.service = OpenAIRealtimeLLMService(
            api_key="none",
            base_url=f"ws://{options.host}/v1/realtime",
            settings=OpenAIRealtimeLLMService.Settings(
                model=options.config,
                system_instruction="Answer in one sentence.",
                session_properties=SessionProperties(audio=audio),
            ),
        )
        self.service.register_function("get_weather", _get_weather)
        messages = [] if text is None else [{"role": "user", "content": text}]
        self.context = LLMContext(messages, tools=ToolsSchema(standard_tools=[TOOL]))
        aggregators = LLMContextAggregatorPair(self.context)
        pipeline = Pipeline([aggregators.user(), self.service, aggregators.assistant()])
        self.worker = PipelineWorker(
            pipeline,
            cancel_on_idle_timeout=False,
            enable_rtvi=False,
            observers=[Watch(self.service, self.inbox)],
        )
        self.started = asyncio.Event()
        self.items: list[Any] = []

        @self.worker.event_handler("on_pipeline_started")
        async def _on_started(*_: Any) -> None:
            self.started.set()

        @self.service.event_handler("on_conversation_item_created")
        async def _on_item(_: Any, __: str, item: Any) -> None:
            self.items.append(item)

    async def configured(self) -> None:
        """Wait until the server has acknowledged the session's settings."""
        async with asyncio.timeout(PATIENCE_S):
            while not self.service._api_session_ready:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.05)

    async def append(self, pcm: bytes) -> None:
        """Send sound."""
        await self.worker.queue_frame(InputAudioRawFrame(pcm, RATE_HZ, 1))

    async def speak(self, name: str) -> None:
        """Say a recording, faster than anybody speaks."""
        for chunk in speech(name):
            await self.append(chunk)

    async def ask(self, name: str) -> str:
        """Say a recording into a microphone, and return the words of the reply."""
        mark = self.inbox.mark
        async with Microphone(self.append) as microphone:
            ended_s = await microphone.say(name)
            words = await self.reply(mark)
        self.waits.add(self.inbox, mark, ended_s, _is_audio)
        return words

    async def reply(self, mark: int) -> str:
        """Return the words of the next reply that the service tells the pipeline about."""

        def ended(events: list[Any]) -> str | None:
            words: list[str] = []
            for event in events:
                kind = type(event).__name__
                if kind == "ErrorFrame":
                    return f"error: {event.error}"
                if kind == "TTSTextFrame":
                    words.append(event.text)
                if kind == "LLMFullResponseEndFrame" and words:
                    return "".join(words).strip()
            return None

        words = await self.inbox.wait(ended, "a reply", mark)
        check(not words.startswith("error:"), words)
        return words

    def audio_s(self, mark: int) -> float:
        """Return the length of the audio since a mark."""
        frames = [frame for frame in self.inbox.events[mark:] if _is_audio(frame)]
        return sum(len(frame.audio) for frame in frames) / (2 * RATE_HZ)


def _is_audio(frame: Any) -> bool:
    return type(frame).__name__ == "TTSAudioRawFrame"


async def _get_weather(params: FunctionCallParams) -> None:
    await params.result_callback("rain")


@contextlib.asynccontextmanager
async def running(
    options: Options, *, text: str | None = None, turn_detection: Any = None
) -> AsyncIterator[Talk]:
    """Run a pipeline, and stop it."""
    talk = Talk(options, text, turn_detection or TurnDetection(silence_duration_ms=500))
    if turn_detection is False:
        talk = Talk(options, text, turn_detection=False)
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(talk.worker)
    task = asyncio.create_task(runner.run())
    async with asyncio.timeout(30):
        await talk.started.wait()
    try:
        yield talk
    finally:
        await talk.worker.cancel()
        await task


async def main(options: Options) -> None:
    """Hold all scenarios. Text gets into this service with the context that it starts from."""
    logger.remove()
    if os.environ.get("DEBUG"):
        logger.add(lambda message: print(message, end=""))  # noqa: T201
    async with running(options, text="what is two plus two") as talk:
        await converse(talk, is_scripted=options.is_scripted)
    async with running(options, text="what is the weather in paris") as talk:
        await call_function(talk)
    async with running(options, text="count from one to ten") as talk:
        await talk_over(talk)
    async with running(options, turn_detection=False) as talk:
        await push_to_talk(talk)


async def converse(talk: Talk, *, is_scripted: bool) -> None:
    """Start from a written question, talk, make a mistake, and connect again."""
    inbox = talk.inbox
    async with scenario("connect and session"):
        await talk.configured()
    async with scenario("text turn"):
        mark = inbox.mark
        await talk.worker.queue_frame(LLMRunFrame())
        check_words(await talk.reply(mark), "two", "plus", "four")
    async with scenario("spoken turn"):
        mark = inbox.mark
        check_words(await talk.ask(MY_NAME), "nice", "meet", "peter")
        check(talk.audio_s(mark) > 0.5, f"{talk.audio_s(mark)} s of audio")
    async with scenario("transcription"):
        check_words((await inbox.event("TranscriptionFrame")).text, "name", "peter")
    async with scenario("history"):
        check_words(await talk.ask(WHAT_NAME), "peter")
    talk.waits.report(is_scripted=is_scripted)
    async with scenario("errors"):
        try:
            await talk.service.retrieve_conversation_item("no_such_item")
        except Exception as error:  # noqa: BLE001 - the service raises nothing narrower
            check("no_such_item" in str(error), f"{error}")
        else:
            check(is_so=False, message="an unknown item was retrieved")
        item = talk.items[0]
        again = await talk.service.retrieve_conversation_item(item.id)
        check(again.id == item.id, f"retrieved {again}")
    async with scenario("reconnect"):
        told = [m for m in talk.context.get_messages() if "peter" in str(m)]
        check(told, f"the context has {talk.context.get_messages()}")
        mark = inbox.mark
        await talk.service.reset_conversation()
        await talk.service._create_response()
        check_words(await talk.reply(mark), "peter")


async def call_function(talk: Talk) -> None:
    """Have the service run a function and tell its result."""
    async with scenario("tool call"):
        await talk.worker.queue_frame(LLMRunFrame())
        reply = await talk.reply(0)
        check(reply == "there will be rain", reply)


async def talk_over(talk: Talk) -> None:
    """Interrupt a long reply by speech; the service truncates what it has not played."""
    async with scenario("interruption"):
        await talk.worker.queue_frame(LLMRunFrame())
        await talk.inbox.event("TTSAudioRawFrame")
        item = next(item for item in talk.items if item.role == "assistant")
        await asyncio.sleep(HEARD_MS / 1000)
        mark = talk.inbox.mark
        await talk.speak(MY_NAME)
        check_words(await talk.reply(mark), "nice", "meet", "peter")
        kept = await talk.service.retrieve_conversation_item(item.id)
        check_heard(kept.content[0].transcript)
        mark = talk.inbox.mark
        await talk.speak(WHAT_NAME)
        check_remembered(await talk.reply(mark))


async def push_to_talk(talk: Talk) -> None:
    """Turn detection is off: the pipeline says when the user begins and ends."""
    async with scenario("push to talk"):
        # Whoever talks sooner is answered in the default voice, which is then there to stay.
        await talk.configured()
        await talk.worker.queue_frame(UserStartedSpeakingFrame())
        await talk.worker.queue_frame(InterruptionFrame())
        await talk.speak(MY_NAME)
        mark = talk.inbox.mark
        await talk.worker.queue_frame(UserStoppedSpeakingFrame())
        check_words(await talk.reply(mark), "nice", "meet", "peter")


if __name__ == "__main__":
    run(main)
