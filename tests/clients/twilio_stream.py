"""Carry a telephone call as the Twilio sample of `openai-agents` does: µ-law in `semantic_vad`.

The sample is no package: it is a program around `RealtimeRunner` that joins a WebSocket of Media
Streams to a session. `Call` is written by us from what it does: 50 ms of the caller's µ-law at a
time go to `send_audio`; the reply's µ-law goes out as `media` with a `mark` behind each piece; a
mark that comes back was played, and tells the playback tracker so; `audio_interrupted` sends
`clear`. `Phone` is the far end: it sends 20 ms of µ-law every 20 ms, plays in real time, and gives
marks back, also after `clear`, as Twilio documents.
"""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from agents import set_tracing_disabled
from agents.realtime import (
    RealtimeAgent,
    RealtimePlaybackTracker,
    RealtimeRunner,
    RealtimeSession,
)
from agents_sdk import Talk, get_weather, user_words
from common import (
    HEARD_MS,
    MY_NAME,
    PATIENCE_S,
    PIECE_MS,
    TALK_OVER,
    WHAT_NAME,
    Inbox,
    Microphone,
    Options,
    check,
    check_heard,
    check_remembered,
    check_words,
    not_applicable,
    run,
    scenario,
    ulaw_8_khz,
)

Message = dict[str, Any]

PHONE_RATE_HZ = 8000
PHONE_PIECE_BYTES = PHONE_RATE_HZ * PIECE_MS // 1000
BUFFER_BYTES = PHONE_RATE_HZ // 20  # 50 ms, as in the sample
STREAM = {"streamSid": "MZ1"}


class Phone:
    """The far end: messages of Media Streams in real time, and a loudspeaker.

    Args:
        inbox: where pieces of the reply are put when they come.
    """

    def __init__(self, inbox: Inbox) -> None:
        self.sent: asyncio.Queue[Message] = asyncio.Queue()
        self.played_ms = 0
        self.cleared = 0
        self._inbox = inbox
        self._waiting: list[bytes | str] = []  # µ-law to play, and names of marks

    def begin(self) -> None:
        """Dial."""
        self.sent.put_nowait({"event": "connected", "protocol": "Call", "version": "1.0.0"})
        self.sent.put_nowait({"event": "start", "start": STREAM, **STREAM})

    async def append(self, pcm: bytes) -> None:
        """Send a piece of sound."""
        payload = base64.b64encode(ulaw_8_khz(pcm)).decode()
        media = {"track": "inbound", "payload": payload}
        self.sent.put_nowait({"event": "media", "media": media, **STREAM})

    def take(self, message: Message) -> None:
        """Take a message from the application."""
        check(message["streamSid"] == STREAM["streamSid"], f"{message}")
        match message["event"]:
            case "media":
                self._inbox.put(Media())
                self._waiting.append(base64.b64decode(message["media"]["payload"]))
            case "mark":
                self._waiting.append(message["mark"]["name"])
            case "clear":
                self.cleared += 1
                names = [each for each in self._waiting if isinstance(each, str)]
                self._waiting.clear()
                for name in names:
                    self._mark(name)

    async def play(self) -> None:
        """Play in real time, and send marks back when the sound before them has been played."""
        while True:
            while self._waiting and isinstance(self._waiting[0], str):
                self._mark(self._waiting.pop(0))
            room = PHONE_PIECE_BYTES
            while room and self._waiting and isinstance(self._waiting[0], bytes):
                sound = self._waiting.pop(0)
                if sound[room:]:
                    self._waiting.insert(0, sound[room:])
                self.played_ms += min(room, len(sound)) * 1000 // PHONE_RATE_HZ
                room -= min(room, len(sound))
            await asyncio.sleep(PIECE_MS / 1000)

    async def quiet(self) -> None:
        """Wait until everything has been played."""
        async with asyncio.timeout(PATIENCE_S):
            while self._waiting:  # noqa: ASYNC110 - it plays in real time
                await asyncio.sleep(PIECE_MS / 1000)

    def _mark(self, name: object) -> None:
        self.sent.put_nowait({"event": "mark", "mark": {"name": name}, **STREAM})


class Media:
    """A piece of the reply has come to the phone."""

    type = "media"


class Call(Talk):
    """One telephone call."""

    def __init__(self, session: RealtimeSession, tracker: RealtimePlaybackTracker) -> None:
        super().__init__(session)
        self.phone = Phone(self.inbox)
        self._tracker = tracker
        self._marks: dict[str, tuple[str, int, int]] = {}
        self._to_phone = bytearray()
        self._to_mark: list[str] = []

    async def ask(self, name: str) -> str:
        """Say a recording into the phone, and return the words of the reply."""
        await self.phone.quiet()
        mark = self.inbox.mark
        async with Microphone(self.phone.append) as microphone:
            ended_s = await microphone.say(name)
            words = await self.reply(mark)
        self.waits.add(self.inbox, mark, ended_s, lambda event: isinstance(event, Media))
        return words

    async def hear_phone(self) -> None:
        """Hand on what comes from the phone."""
        buffer = bytearray()
        while True:
            message = await self.phone.sent.get()
            if message["event"] == "media":
                buffer += base64.b64decode(message["media"]["payload"])
                if len(buffer) >= BUFFER_BYTES:
                    await self.session.send_audio(bytes(buffer))
                    buffer.clear()
            elif message["event"] == "mark" and message["mark"]["name"] in self._marks:
                item_id, index, size = self._marks.pop(message["mark"]["name"])
                self._tracker.on_play_bytes(item_id, index, bytes(size))

    async def listen(self) -> None:
        """Keep what comes, and hand its sound on to the phone."""
        async for event in self.session:
            self.inbox.put(event)
            if event.type == "audio":
                name = f"{len(self._marks)}-{self.inbox.mark}"
                place = (event.audio.item_id, event.audio.content_index, len(event.audio.data))
                self._marks[name] = place
                self._to_mark.append(name)
                self._to_phone += event.audio.data
                if len(self._to_phone) >= BUFFER_BYTES:
                    self._flush()
            elif event.type == "audio_interrupted":
                self._flush()
                self.phone.take({"event": "clear", **STREAM})
            elif event.type == "audio_end":
                self._flush()
        self.inbox.end("the session ended")

    def _flush(self) -> None:
        if self._to_phone:
            payload = base64.b64encode(self._to_phone).decode()
            self.phone.take({"event": "media", "media": {"payload": payload}, **STREAM})
        for name in self._to_mark:
            self.phone.take({"event": "mark", "mark": {"name": name}, **STREAM})
        self._to_phone.clear()
        self._to_mark.clear()


@contextlib.asynccontextmanager
async def called(options: Options) -> AsyncIterator[Call]:
    """Take a call with the sample's settings, and hang up in the end."""
    tracker = RealtimePlaybackTracker()
    agent = RealtimeAgent(
        name="parley", instructions="Answer in one sentence.", tools=[get_weather]
    )
    detection = {"type": "semantic_vad", "interrupt_response": True, "create_response": True}
    model_config = {
        "url": f"ws://{options.host}/v1/realtime?model={options.config}",
        "api_key": "none",
        "initial_model_settings": {
            "model_name": options.config,
            "input_audio_format": "g711_ulaw",
            "output_audio_format": "g711_ulaw",
            "turn_detection": detection,
        },
        "playback_tracker": tracker,
    }
    async with await RealtimeRunner(agent).run(model_config=model_config) as session:
        call = Call(session, tracker)
        loops = (call.listen, call.hear_phone, call.phone.play)
        tasks = [asyncio.create_task(loop()) for loop in loops]
        call.phone.begin()
        try:
            yield call
        finally:
            for task in tasks:
                task.cancel()


async def main(options: Options) -> None:
    """Hold all scenarios."""
    set_tracing_disabled(disabled=True)
    async with called(options) as call:
        await converse(call, is_scripted=options.is_scripted)
    not_applicable("push to talk", "a telephone has no button for it")
    not_applicable("reconnect", "a RealtimeSession is one connection and replays nothing")
    not_applicable("errors", "as openai-agents")


async def converse(call: Call, *, is_scripted: bool) -> None:
    """Talk, write, call a function, and talk over the reply."""
    inbox = call.inbox
    async with scenario("connect and session"):
        session = (await call.server_event("session.updated", 0))["session"]
        audio = session["audio"]
        kinds = audio["input"]["format"]["type"], audio["output"]["format"]["type"]
        check(kinds == ("audio/pcmu", "audio/pcmu"), f"formats {kinds}")
        check(audio["input"]["turn_detection"]["type"] == "semantic_vad", f"{audio['input']}")
    async with scenario("spoken turn"):
        check_words(await call.ask(MY_NAME), "nice", "meet", "peter")
        sizes = [len(e.audio.data) for e in inbox.events if e.type == "audio"]
        check(sum(sizes) > PHONE_RATE_HZ // 2, f"{sum(sizes)} bytes of µ-law")
    async with scenario("transcription"):
        words = await inbox.wait(lambda _: user_words(call), "the user's words in the history")
        check_words(words, "name", "peter")
    async with scenario("history"):
        check_words(await call.ask(WHAT_NAME), "peter")
    call.waits.report(is_scripted=is_scripted)
    async with scenario("text turn"):
        mark = inbox.mark
        await call.session.send_message("what is two plus two")
        check_words(await call.reply(mark), "two", "plus", "four")
    async with scenario("tool call"):
        mark = inbox.mark
        await call.session.send_message("what is the weather in paris")
        check((await inbox.event("tool_end", mark)).output == "rain", "another output")
        check(await call.reply(mark) == "there will be rain", "another reply")
    async with scenario("interruption"):
        await talk_over(call)


async def talk_over(call: Call) -> None:
    """Interrupt a long reply by speech: the phone is cleared, and the rest was not heard."""
    inbox, phone = call.inbox, call.phone
    await phone.quiet()
    mark, before_ms, cleared = inbox.mark, phone.played_ms, phone.cleared
    await call.session.send_message("count from one to ten")
    audio = await inbox.event("audio", mark)
    while phone.played_ms - before_ms < HEARD_MS:  # noqa: ASYNC110 - it plays in real time
        await asyncio.sleep(PIECE_MS / 1000)
    async with Microphone(phone.append) as microphone:
        await microphone.say(TALK_OVER)
        answer = await inbox.wait(
            lambda events: call._answered(events, after=audio.item_id),
            "an answer to what was said over the reply",
            mark,
        )
    check_words(call.words(answer), "two", "plus", "four")
    check(phone.cleared > cleared, "the phone was not cleared")
    truncated = await call.server_event("conversation.item.truncated", mark)
    check(truncated["item_id"] == audio.item_id, f"truncated {truncated}")
    check_heard(call.words(audio.item_id))
    mark = inbox.mark
    await call.session.send_message("what is my name")
    check_remembered(await call.reply(mark))


if __name__ == "__main__":
    run(main)
