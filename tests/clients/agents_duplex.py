"""Talk through the `openai-agents` package to a model that listens and speaks at once.

The server's is a random twin (docs/duplex.md): after the user has spoken, it says what it is.
"""

import asyncio
from typing import Any

from agents import set_tracing_disabled
from agents_sdk import Talk, connected
from common import (
    HEARD_MS,
    MY_NAME,
    RATE_HZ,
    TALK_OVER,
    WHAT_NAME,
    Options,
    check,
    check_twin,
    not_for_duplex,
    run,
    scenario,
    speech,
)


async def main(options: Options) -> None:
    """Hold the scenarios that apply."""
    set_tracing_disabled(disabled=True)
    # The model says nothing about the end of turns, so semantic_vad would wait its longest.
    async with connected(options, turn_detection={"type": "server_vad"}) as talk:
        await converse(talk)
    async with connected(options, turn_detection=None) as talk:
        await push_to_talk(talk)
    not_for_duplex("text turn", "tool call", "transcription", "reconnect", "first audio")


async def converse(talk: Talk) -> None:
    """Talk, talk over the reply, and make mistakes."""
    inbox = talk.inbox
    async with scenario("connect and session"):
        session = (await talk.server_event("session.updated", 0))["session"]
        check(session["instructions"] == "Answer in one sentence.", session["instructions"])
    async with scenario("spoken turn"):
        mark = inbox.mark
        await talk.speak(MY_NAME)
        check_twin(await talk.reply(mark))
        check(talk.audio_s(mark) > 1.0, f"{talk.audio_s(mark)} s of audio")
    async with scenario("history"):
        mark = inbox.mark
        await talk.speak(WHAT_NAME)
        check_twin(await talk.reply(mark))
        roles = [getattr(item, "role", None) for item in talk.session._history]
        check(roles == ["user", "assistant"] * 2, f"history {roles}")
    async with scenario("interruption"):
        await talk_over(talk)
    async with scenario("errors"):
        mark = inbox.mark
        await talk.session.send_message("what is two plus two")
        # The package asks for a reply as well, which is refused for the same reason.
        errors = await inbox.wait(
            lambda events: found if len(found := _errors(events)) == 2 else None, "errors", mark
        )
        check({error.code for error in errors} == {"unsupported_content_type"}, f"{errors}")
        # What is spoken is answered.
        mark = inbox.mark
        await talk.speak(MY_NAME)
        check_twin(await talk.reply(mark))


def _errors(events: list[Any]) -> list[Any]:
    return [event.error for event in events if event.type == "error"]


async def talk_over(talk: Talk) -> None:
    """Interrupt a reply by speech: the model stops, the package stops playing and truncates."""
    inbox, mark = talk.inbox, talk.inbox.mark
    await talk.speak(MY_NAME)
    audio = await inbox.event("audio", mark)
    await inbox.wait(
        lambda _: talk.audio_s(mark) * 1000 >= HEARD_MS or None, "enough to hear", mark
    )
    mark = inbox.mark
    for chunk in speech(TALK_OVER):
        await talk.session.send_audio(chunk)
        await asyncio.sleep(len(chunk) / (2 * RATE_HZ))
    await inbox.event("audio_interrupted", mark)
    truncated = await talk.server_event("conversation.item.truncated", mark)
    check(truncated["item_id"] == audio.item_id, f"truncated {truncated}")
    answer = await inbox.wait(
        lambda events: Talk._answered(events, after=audio.item_id),
        "an answer to what was said over the reply",
        mark,
    )
    check_twin(talk.words(answer))


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
        check_twin(await talk.reply(mark))
        started = talk.raw("input_audio_buffer.speech_started", talk.inbox.events)
        check(not started, "speech was detected nevertheless")


if __name__ == "__main__":
    run(main)
