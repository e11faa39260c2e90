"""Talk through pipecat's `OpenAIRealtimeLLMService` to a model that listens and speaks at once.

The server's is a random twin (docs/duplex.md): after the user has spoken, it says what it is.
"""

import asyncio
from typing import Any

from common import (
    HEARD_MS,
    MY_NAME,
    TALK_OVER,
    WHAT_NAME,
    Options,
    check,
    check_twin,
    not_for_duplex,
    run,
    scenario,
)
from loguru import logger
from pipecat.frames.frames import (
    InterruptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from pipecat_service import Talk, running


async def main(options: Options) -> None:
    """Hold the scenarios that apply. Nothing in writing gets into the context."""
    logger.remove()
    async with running(options) as talk:
        await converse(talk)
    async with running(options) as talk:
        await talk_over(talk)
    async with running(options, turn_detection=False) as talk:
        await push_to_talk(talk)
    not_for_duplex("text turn", "tool call", "transcription", "reconnect", "first audio")


async def converse(talk: Talk) -> None:
    """Talk, and make a mistake."""
    inbox = talk.inbox
    async with scenario("connect and session"):
        await talk.configured()
    async with scenario("spoken turn"):
        mark = inbox.mark
        await talk.speak(MY_NAME)
        check_twin(await talk.reply(mark))
        check(talk.audio_s(mark) > 1.0, f"{talk.audio_s(mark)} s of audio")
    async with scenario("history"):
        mark = inbox.mark
        await talk.speak(WHAT_NAME)
        check_twin(await talk.reply(mark))
        roles = sorted(item.role for item in talk.items)
        check(roles == ["assistant"] * 2 + ["user"] * 2, f"items of {roles}")
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


async def talk_over(talk: Talk) -> None:
    """Interrupt a reply by speech; the service truncates what it has not played."""
    async with scenario("interruption"):
        await talk.configured()
        await talk.speak(MY_NAME)
        await talk.inbox.event("TTSAudioRawFrame")
        item = next(item for item in talk.items if item.role == "assistant")
        await asyncio.sleep(HEARD_MS / 1000)
        mark = talk.inbox.mark
        await talk.speak(TALK_OVER)
        # The model stops by itself, a moment after it has been spoken over, and answers.
        await talk.inbox.wait(_answer, "an answer to what was said over the reply", mark)
        kept = await talk.service.retrieve_conversation_item(item.id)
        words = kept.content[0].transcript
        check("noise" not in words, f"{words!r} has words that were not heard")


def _answer(events: list[Any]) -> str | None:
    """Return the words told, once a reply from its beginning is among them."""
    words = "".join(event.text for event in events if type(event).__name__ == "TTSTextFrame")
    return words if "i am a random twin" in words else None


async def push_to_talk(talk: Talk) -> None:
    """Turn detection is off: the pipeline says when the user begins and ends."""
    async with scenario("push to talk"):
        await talk.configured()
        await talk.worker.queue_frame(UserStartedSpeakingFrame())
        await talk.worker.queue_frame(InterruptionFrame())
        await talk.speak(MY_NAME)
        mark = talk.inbox.mark
        await talk.worker.queue_frame(UserStoppedSpeakingFrame())
        check_twin(await talk.reply(mark))


if __name__ == "__main__":
    run(main)
