"""Talk through the `openai` package to a model that listens and speaks at once.

The server's is a random twin (docs/duplex.md): after the user has spoken, it says what it is.
"""

import asyncio
import base64
from typing import Any

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
from openai_sdk import Talk, connected, said


async def main(options: Options) -> None:
    """Hold the scenarios that apply."""
    async with connected(options) as talk:
        await converse(talk)
    async with connected(options) as talk:
        await push_to_talk(talk)
    not_for_duplex("text turn", "tool call", "transcription", "reconnect", "first audio")


async def converse(talk: Talk) -> None:
    """Talk, talk over the reply, and make mistakes."""
    inbox, connection = talk.inbox, talk.connection
    async with scenario("connect and session"):
        session = await talk.set_up({"type": "server_vad", "silence_duration_ms": 500})
        check(inbox.events[0].type == "session.created", f"first came {inbox.events[0].type}")
        check(session.id.startswith("sess_"), f"session id {session.id}")
    async with scenario("spoken turn"):
        mark = inbox.mark
        await talk.speak(MY_NAME)
        check_twin(said(await talk.response(mark)))
        check(talk.audio_s(mark) > 1.0, f"{talk.audio_s(mark)} s of audio")
    async with scenario("history"):
        mark = inbox.mark
        await talk.speak(WHAT_NAME)
        await talk.response(mark)
        check(order(talk) == ["user", "assistant"] * 2, f"the order is {order(talk)}")
    async with scenario("interruption"):
        await talk_over(talk)
    async with scenario("errors"):
        mark = inbox.mark
        part = {"type": "input_text", "text": "what is two plus two"}
        item = {"type": "message", "role": "user", "content": [part]}
        await connection.conversation.item.create(item=item, event_id="mine")
        error = (await inbox.event("error", mark)).error
        check(error.event_id == "mine" and error.code == "unsupported_content_type", f"{error}")
        check("Send audio instead" in error.message, error.message)
        # Nor is there a reply to what was refused.
        mark = inbox.mark
        await connection.response.create()
        error = (await inbox.event("error", mark)).error
        check(error.code == "unsupported_content_type", f"{error}")
        await talk.speak(MY_NAME)
        check_twin(said(await talk.response(inbox.mark)))


def order(talk: Talk) -> list[str]:
    """Return whose the items are, in the conversation's order."""
    roles: dict[str, str] = {}
    items: list[str] = []
    for event in talk.inbox.events:
        if event.type == talk.dialect.item_added:
            after = event.previous_item_id
            items.insert(items.index(after) + 1 if after else 0, event.item.id)
            roles[event.item.id] = event.item.role
    return [roles[item] for item in items]


async def talk_over(talk: Talk) -> None:
    """Interrupt a reply by speech: the model hears that and stops; say how much was heard."""
    inbox, connection, mark = talk.inbox, talk.connection, talk.inbox.mark
    await talk.speak(MY_NAME)
    audio = await inbox.event(talk.dialect.audio_delta, mark)
    await inbox.wait(
        lambda _: talk.audio_s(mark) * 1000 >= HEARD_MS or None, "enough to hear", mark
    )
    speaking = asyncio.create_task(talk_slowly(talk, TALK_OVER))
    await inbox.event("input_audio_buffer.speech_started", inbox.mark)
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
    check_twin(said(answer.response))
    await connection.conversation.item.retrieve(item_id=audio.item_id)
    kept = (await inbox.event("conversation.item.retrieved", mark)).item.content[0].transcript
    check("i am a random" in kept, f"{kept!r} is not the beginning")
    check("noise" not in kept, f"{kept!r} has words that were not heard")


async def talk_slowly(talk: Talk, name: str) -> None:
    """Say a recording in real time."""
    for chunk in speech(name):
        await talk.connection.input_audio_buffer.append(audio=base64.b64encode(chunk).decode())
        await asyncio.sleep(len(chunk) / (2 * RATE_HZ))


async def push_to_talk(talk: Talk) -> None:
    """Send everything at once without turn detection, commit, and ask for the reply."""
    async with scenario("push to talk"):
        await talk.set_up(None)
        await talk.speak(MY_NAME)
        mark = talk.inbox.mark
        await talk.connection.input_audio_buffer.commit()
        await talk.inbox.event("input_audio_buffer.committed", mark)
        response: Any = await talk.respond(mark)
        check_twin(said(response))
        kinds = {event.type for event in talk.inbox.events}
        check("input_audio_buffer.speech_started" not in kinds, "speech was detected nevertheless")
        check("error" not in kinds, "an error")


if __name__ == "__main__":
    run(main)
