"""Talk to a server for hours in minutes, and notice everything that is lost.

A caller does not wait for time to pass: it sends its sound at once, and the server's script speaks
many times faster than people do. What takes time on a telephone (thinking, listening) is left out;
what is work (events, sound, turns, memory) is all there.
"""

import asyncio
import base64
import contextlib
import json
import random
import wave
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from benchmarks.report import ROOT

BYTES_PER_S = 2 * 24_000
SCRIPT = """
hear: [{text: hello, repeat: true}]
pace: {first_output_ms: 20, write_ms: 1, words_per_minute: 150, real_time_factor: 0.01}
reply:
  - {when: {user: 'hello'}, say: hello there}
  - {when: {user: 'my name is (?P<name>[a-z]+)'}, say: 'nice to meet you {name}'}
  - when: {user: 'weather'}
    call: {name: get_weather, arguments: {city: paris}}
  - {when: {function: get_weather, output: '(?P<degrees>[0-9]+)'}, say: 'it is {degrees} degrees'}
  - when: {user: 'what is my name', history: '^(?s:.*)user: my name is (?P<name>[a-z]+)'}
    say: your name is {name}
  - when: {user: 'story'}
    say: STORY
"""
_STORY_WORDS = 60
_TURN_S = 60.0
_TRIES = 8
_QUESTION = ROOT / "tests" / "assets" / "two_plus_two.wav"
_PIECE_S = 0.2
_TOOL = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
Event = dict[str, Any]


def script() -> str:
    """Return what the server's models say."""
    return SCRIPT.replace("STORY", " ".join(["word"] * _STORY_WORDS))


@dataclass(slots=True)
class Told:
    """What callers were told, all together.

    Attributes:
        calls: that ended as their callers wanted.
        replies: that were completed.
        cut: replies that their callers stopped.
        failed: replies that were lost with an engine, and asked for again.
        unheard: spoken turns that were lost with an engine, as the API says it.
        waited: tries to call while a model had no place, or no engine.
        responses: that were told to have ended, whatever way.
        tokens: that they cost, by kind.
        heard_s: sound of replies.
        said_s: sound that callers sent.
        lost: what should not have happened.
    """

    calls: int = 0
    replies: int = 0
    cut: int = 0
    failed: int = 0
    unheard: int = 0
    waited: int = 0
    responses: int = 0
    tokens: Counter[str] = field(default_factory=Counter)
    heard_s: float = 0.0
    said_s: float = 0.0
    lost: list[str] = field(default_factory=list)

    def note(self, response: Event) -> None:
        """Take note of a response that ended."""
        self.responses += 1
        match response["status"]:
            case "completed":
                self.replies += 1
            case "cancelled":
                self.cut += 1
            case _:
                self.failed += 1
        usage = response["usage"]
        if usage is None:
            return
        for side in ("input", "output"):
            for kind in ("text", "audio"):
                self.tokens[f"{side}_{kind}_tokens"] += usage[f"{side}_token_details"][
                    f"{kind}_tokens"
                ]


class LostError(Exception):
    """Report that something did not come that was to come."""


class Caller:
    """Call again and again until told to stop.

    Args:
        url: of the server, with the model.
        key: API key.
        name: unlike that of any other caller, small letters.
        told: what all callers were told.
        seed: decides what it does.
    """

    def __init__(self, url: str, key: str, name: str, told: Told, seed: int) -> None:
        self._url, self._headers = url, {"authorization": f"Bearer {key}"}
        self._name, self._told = name, told
        self._random = random.Random(seed)  # noqa: S311 - to be repeated
        with wave.open(str(_QUESTION)) as file:
            self._question = file.readframes(file.getnframes())

    async def run(self, is_over: asyncio.Event) -> None:
        """Call until it is over; the last call ends as any other."""
        while not is_over.is_set():
            await self.once(is_over)

    async def once(self, is_over: asyncio.Event) -> None:
        """Make one call, shorter if it is over."""
        try:
            async with connect(
                self._url, additional_headers=self._headers, max_queue=None, max_size=None
            ) as client:
                await self._call(client, is_over)
            self._told.calls += 1
        except InvalidStatus as refused:
            if refused.response.status_code != 503:
                self._told.lost.append(f"refused with {refused.response.status_code}")
            self._told.waited += 1
            await asyncio.sleep(0.5)
        except (LostError, TimeoutError, ConnectionClosed, InvalidHandshake, OSError) as error:
            self._told.lost.append(f"{type(error).__name__}: {error}"[:200])
            await asyncio.sleep(0.5)

    async def _call(self, client: ClientConnection, is_over: asyncio.Event) -> None:
        talk = _Talk(client, self._told)
        by_hand = self._random.random() < 0.5
        detection = None if by_hand else {"type": "server_vad", "create_response": True}
        audio = {"input": {"turn_detection": detection, "transcription": {"model": "m"}}}
        session = {"type": "realtime", "audio": audio, "tools": [_TOOL]}
        await talk.send(type="session.update", session=session)
        await talk.ask(f"my name is {self._name}", f"nice to meet you {self._name}")
        for _ in range(self._random.randint(1, 4)):
            match self._random.choice(("speak", "story", "cut", "call", "aside")):
                case "speak":
                    await talk.speak(self._question, by_hand=by_hand)
                case "story":
                    await talk.ask("a story", " ".join(["word"] * _STORY_WORDS))
                case "cut":
                    await talk.cut("a story")
                case "call":
                    await talk.call("what is the weather", self._random.randint(0, 40))
                case _:
                    await talk.ask("hello", "hello there", is_text=True)
            if is_over.is_set():
                break
        await talk.ask("what is my name", f"your name is {self._name}")


class _Talk:
    """Hold one conversation, turn by turn."""

    def __init__(self, client: ClientConnection, told: Told) -> None:
        self._client, self._told = client, told
        self._num_asked = 0

    async def send(self, **event: Any) -> None:
        """Send an event."""
        await self._client.send(json.dumps(event))

    async def ask(self, text: str, expected: str, *, is_text: bool = False) -> None:
        """Type a turn; the reply must be the expected one, however often it has to be asked for."""
        await self.write(text)
        said = _words(await self._replied(is_text=is_text))
        if said != expected:
            raise LostError(f"expected {expected[:60]!r}, got {said[:60]!r}")

    async def speak(self, pcm: bytes, *, by_hand: bool) -> None:
        """Speak a turn, and hear the reply."""
        silence = bytes(0 if by_hand else int(0.8 * BYTES_PER_S))
        step = int(_PIECE_S * BYTES_PER_S)
        sound = pcm + silence
        for start in range(0, len(sound), step):
            piece = base64.b64encode(sound[start : start + step]).decode()
            await self.send(type="input_audio_buffer.append", audio=piece)
        self._told.said_s += len(sound) / BYTES_PER_S
        if by_hand:
            await self.send(type="input_audio_buffer.commit")
        heard = await self._until(
            "conversation.item.input_audio_transcription.completed",
            "conversation.item.input_audio_transcription.failed",
        )
        if heard["type"].endswith("failed"):
            self._told.unheard += 1
        # By voice detection it is replied to by itself, unless the engine was lost on the way.
        is_by_itself = not by_hand and heard["type"].endswith("completed")
        if not (is_by_itself and await self._done(None)):
            await self._replied()

    async def cut(self, text: str) -> None:
        """Ask, and stop the reply when it has begun to be heard."""
        await self.write(text)
        number = await self._create()
        begun = await self._until("response.output_audio.delta", "response.done")
        if begun["type"] == "response.done":
            return  # the engine was lost
        await self.send(type="response.cancel")
        # Fast as it is made, it may have been made before it was stopped.
        await self._done(number)
        await self.send(
            type="conversation.item.truncate",
            item_id=begun["item_id"],
            content_index=0,
            audio_end_ms=80,
        )
        await self._until("conversation.item.truncated")

    async def call(self, text: str, degrees: int) -> None:
        """Have the model call a function, and hear what it makes of the result."""
        await self.write(text)
        (item,) = (await self._replied(is_text=True))["output"]
        output = {"type": "function_call_output", "call_id": item["call_id"]}
        item = {**output, "output": json.dumps({"degrees": degrees})}
        await self.send(type="conversation.item.create", item=item)
        said = _words(await self._replied(is_text=True))
        if said != f"it is {degrees} degrees":
            raise LostError(f"of {degrees} degrees it was said {said[:60]!r}")

    async def write(self, text: str) -> None:
        """Type a turn, and ask for nothing."""
        content = [{"type": "input_text", "text": text}]
        item = {"type": "message", "role": "user", "content": content}
        await self.send(type="conversation.item.create", item=item)

    async def _create(self, **response: Any) -> str:
        """Ask for a response; returns the number by which it is known."""
        self._num_asked += 1
        number = str(self._num_asked)
        await self.send(type="response.create", response={**response, "metadata": {"n": number}})
        return number

    async def _replied(self, *, is_text: bool = False) -> Event:
        """Ask for a reply until it is completed, and return it."""
        modalities = {"output_modalities": ["text"]} if is_text else {}
        for _ in range(_TRIES):
            response = await self._done(await self._create(**modalities))
            if response is not None:
                return response
        raise LostError(f"no reply in {_TRIES} tries")

    async def _done(self, number: str | None) -> Event | None:
        """Return a response that was asked for, or that came by itself; None if it failed."""
        while True:
            response: Event = (await self._until("response.done"))["response"]
            if (response["metadata"] or {}).get("n") == number:
                return response if response["status"] == "completed" else None

    async def _until(self, *kinds: str) -> Event:
        async with asyncio.timeout(_TURN_S):
            while True:
                event: Event = json.loads(await self._client.recv())
                if event["type"] == "response.output_audio.delta":
                    self._told.heard_s += len(event["delta"]) * 3 / 4 / BYTES_PER_S
                if event["type"] == "response.done":
                    self._told.note(event["response"])
                if event["type"] in kinds:
                    return event
                if event["type"] == "error" and event["error"]["code"] not in (
                    "engine_failed",  # it was killed, and what follows is told as well
                    "response_cancel_not_active",  # it was made already
                ):
                    raise LostError(f"error {event['error']['code']}: {event['error']['message']}")


def _words(response: Event) -> str:
    parts = [part for item in response["output"] for part in item.get("content", ())]
    return " ".join(str(part.get("transcript") or part.get("text")) for part in parts)


class Trouble:
    """Be a bad peer, again and again.

    Args:
        url: of the server.
        key: that its sessions are counted by.
        seed: decides what it does.

    Attributes:
        done: what it did, by kind.
    """

    def __init__(self, url: str, key: str, seed: int) -> None:
        self._url, self._key = url, key
        self._random = random.Random(seed)  # noqa: S311 - to be repeated
        self.done: Counter[str] = Counter()

    async def run(self, is_over: asyncio.Event) -> None:
        """Make trouble until it is over."""
        while not is_over.is_set():
            kind = self._random.choice(("vanish", "deaf", "dead", "rubbish", "stranger"))
            with contextlib.suppress(ConnectionClosed, InvalidHandshake, OSError, TimeoutError):
                await self._once(kind, is_over)
                self.done[kind] += 1
            await asyncio.sleep(0.2)

    async def _once(self, kind: str, is_over: asyncio.Event) -> None:
        key = "sk-a-key-that-nobody-has" if kind == "stranger" else self._key
        options: dict[str, Any] = {"ping_interval": None, "close_timeout": 1, "max_size": None}
        # From another address of this machine: who shares one with those who guess keys is slowed
        # down with them.
        options["local_addr"] = ("127.0.0.2", 0)
        async with connect(
            self._url, additional_headers={"authorization": f"Bearer {key}"}, **options
        ) as client:
            talk = _Talk(client, Told())
            match kind:
                case "vanish":
                    # In the middle of a reply, without a word.
                    await talk.send(type="response.create")
                    await client.recv()
                    client.transport.abort()
                case "deaf":
                    # Asks for more than any buffer holds, and reads nothing.
                    client.transport.pause_reading()
                    for _ in range(200):
                        await talk.write("a story")
                        await talk.send(type="response.create")
                    await _stay(client, is_over, 20.0)
                case "dead":
                    # Answers no ping.
                    client.transport.pause_reading()
                    await _stay(client, is_over, 50.0)
                case _:
                    for text in ("{", "[]", '{"type": "nothing"}', '{"type": "session.update"}'):
                        await client.send(text)
                    await client.send(b"\x00" * 70_000)
                    for _ in range(4):
                        await client.recv()


async def _stay(client: ClientConnection, is_over: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await is_over.wait()
    client.transport.abort()
