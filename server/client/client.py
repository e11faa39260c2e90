"""Hold a spoken conversation with a Realtime server, the way a person with a microphone would.

Audio is sent at the pace of real time, silence while nobody speaks, and the next turn begins when
the last reply would have been heard to its end. Nothing here knows Parley's inside: it is a client
of the public protocol, used by `parley talk` and by the benchmarks.
"""

import asyncio
import base64
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

import numpy as np
import numpy.typing as npt
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from server.audio.pcm import PcmDecoder, encode_pcm
from server.errors import ParleyError

Pcm: TypeAlias = npt.NDArray[np.float32]
Event: TypeAlias = Mapping[str, Any]  # Any: what a server sends is only known by its "type"
Speaker: TypeAlias = Literal["user", "assistant"]
Show: TypeAlias = Callable[[Speaker, str], None]

RATE_HZ = 24_000  # the one rate of `audio/pcm` in the Realtime API
CHUNK_MS = 20
CHUNK_SAMPLES = RATE_HZ * CHUNK_MS // 1000  # 480

# Enough for a loaded server to begin a reply, and little for a script that hangs.
_PATIENCE_S = 30.0  # for a server that says nothing


class TalkError(ParleyError):
    """Report that the conversation cannot go on, or never began."""


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """What came of one spoken turn.

    Attributes:
        transcript: what the server understood.
        item_id: the conversation item that the reply is; None for a reply without audio.
        reply: the reply's words.
        pcm: the reply's audio, float32 [samples] at `RATE_HZ`.
        first_audio_ms: from the server's end-of-turn decision to the reply's first audio, both as
            seen by the client; None for a reply without audio.
        speech_end_ms: where in the user's audio the server placed the end of the turn; it includes
            the silence that the decision waited for.
        reply_at_ms: when the reply's first audio arrived, on the clock of the user's audio.
    """

    transcript: str
    item_id: str | None
    reply: str
    pcm: Pcm
    first_audio_ms: float | None
    speech_end_ms: int
    reply_at_ms: float | None

    @property
    def audio_ms(self) -> int:
        """Return the length of the reply's audio."""
        return len(self.pcm) * 1000 // RATE_HZ


@dataclass(frozen=True, slots=True)
class Truncation:
    """What is left of a reply that was cut short.

    Attributes:
        item_id: the conversation item that the reply is.
        audio_end_ms: how much of its audio was heard.
        heard: the words that the server keeps of it; all others were never said.
    """

    item_id: str
    audio_end_ms: int
    heard: str


@dataclass(frozen=True, slots=True)
class Clock:
    """Tell the time and let it pass; tests bring their own."""

    now_s: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


@dataclass(slots=True)
class _Answer:
    """Collects the events of one turn until it is complete."""

    clock: Clock
    show: Show
    offset_ms: int  # of this turn's audio in all audio sent
    is_all_sent: bool = False
    error: TalkError | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    _is_speaking: bool = False
    _is_answered: bool = False
    _items: list[str] = field(default_factory=list)  # committed user items, in order
    _transcripts: dict[str, str] = field(default_factory=dict)
    _speech_end_ms: int = 0
    _decided_s: float | None = None
    _first_audio_s: float | None = None
    _item_id: str | None = None
    _reply: list[str] = field(default_factory=list)
    _pcm: list[Pcm] = field(default_factory=list)
    _decoder: PcmDecoder = field(default_factory=PcmDecoder)

    def all_sent(self) -> None:
        """Note that the user has said everything."""
        self.is_all_sent = True
        self._end_if_complete()

    def fail(self, message: str) -> None:
        """End the turn without an answer."""
        self.error = TalkError(message)
        self.ended.set()

    def fail_for_silence(self) -> None:
        """End the turn because the server says nothing any more."""
        if self._items:
            self.fail(f"the answer did not end: nothing came for {_PATIENCE_S:.0f} s")
        else:
            self.fail(f"the server heard no speech, and waited {_PATIENCE_S:.0f} s for it")

    def take(self, event: Event) -> None:
        """Take one server event."""
        # Source: Realtime reference, "Server events"; the names are those of GA.
        match event["type"]:
            case "input_audio_buffer.speech_started":
                self._is_speaking = True
            case "input_audio_buffer.speech_stopped":
                self._decided_s = self.clock.now_s()
                # A reply to what was said before does not answer this: another one follows.
                self._is_speaking, self._is_answered = False, False
                self._speech_end_ms = int(event["audio_end_ms"]) - self.offset_ms
            case "input_audio_buffer.committed":
                self._items.append(event["item_id"])
            case "conversation.item.input_audio_transcription.delta":
                self.show("user", event["delta"])
            case "conversation.item.input_audio_transcription.completed":
                self._transcripts[event["item_id"]] = event["transcript"]
            case "conversation.item.input_audio_transcription.failed":
                self._transcripts[event["item_id"]] = ""
            case "error":
                self.fail(f"the server reports an error: {event['error'].get('message')}")
            case _:
                # All that is not listed is for a reply, or for nobody: new kinds of events are no
                # error.
                self._take_response(event)
        self._end_if_complete()

    def _take_response(self, event: Event) -> None:
        match event["type"]:
            case "response.created":
                # A turn with a long pause in it may be answered twice: the last reply counts.
                self._reply.clear()
                self._pcm.clear()
                self._first_audio_s = self._item_id = None
            case "response.output_audio.delta":
                if self._first_audio_s is None:
                    self._first_audio_s = self.clock.now_s()
                self._item_id = event["item_id"]
                self._pcm.append(self._decoder.decode(base64.b64decode(event["delta"])))
            case "response.output_audio_transcript.delta" | "response.output_text.delta":
                self._reply.append(event["delta"])
                self.show("assistant", event["delta"])
            case "response.done":
                self._done(event["response"])
            case _:
                pass

    def _done(self, response: Event) -> None:
        if response["status"] == "failed":
            details = response.get("status_details") or {}
            self.fail(f"the reply failed: {(details.get('error') or details).get('message')}")
        # A cancelled reply is one that the user talked over: another one follows.
        self._is_answered = response["status"] in {"completed", "incomplete"}

    def _end_if_complete(self) -> None:
        # Transcripts come when they are ready, also after the reply has begun. A turn waits for
        # both.
        is_heard = all(item in self._transcripts for item in self._items)
        if self.is_all_sent and self._is_answered and not self._is_speaking and is_heard:
            self.ended.set()

    def turn(self, started_s: float) -> Turn:
        """Return the finished turn.

        Args:
            started_s: when the user's first sample was sent.
        """
        first_audio_ms = reply_at_ms = None
        if self._first_audio_s is not None:
            reply_at_ms = (self._first_audio_s - started_s) * 1000
            if self._decided_s is not None:
                first_audio_ms = (self._first_audio_s - self._decided_s) * 1000
        return Turn(
            transcript=" ".join(filter(None, (self._transcripts.get(i) for i in self._items))),
            item_id=self._item_id,
            reply="".join(self._reply).strip(),
            pcm=np.concatenate(self._pcm) if self._pcm else np.zeros(0, dtype=np.float32),
            first_audio_ms=first_audio_ms,
            speech_end_ms=self._speech_end_ms,
            reply_at_ms=reply_at_ms,
        )


def _show_nothing(speaker: Speaker, text: str) -> None:
    del speaker, text


class Conversation:
    """One session with a server; made by `open_conversation`."""

    def __init__(
        self, socket: ClientConnection, *, show: Show = _show_nothing, clock: Clock | None = None
    ) -> None:
        self._socket = socket
        self._show = show
        self._clock = clock or Clock()
        self._num_sent_chunks = 0
        # Until then the last reply is still being heard.
        self._playing_until_s = 0.0

    async def set_up(self, voice: str | None) -> None:
        """Choose the voice, and ask for transcripts.

        Raises:
            TalkError: the server refused.
        """
        await self._expect("session.created")
        output: dict[str, Any] = {"format": {"type": "audio/pcm", "rate": RATE_HZ}}
        if voice is not None:
            output["voice"] = voice
        session = {
            "type": "realtime",
            "output_modalities": ["audio"],
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": RATE_HZ},
                    "transcription": {"model": "starter"},
                    "turn_detection": {"type": "server_vad"},
                },
                "output": output,
            },
        }
        await self._send("session.update", session=session)
        await self._expect("session.updated")

    async def say(self, pcm: Pcm) -> Turn:
        """Say something and return what came of it.

        Args:
            pcm: float32 [samples] at `RATE_HZ`.

        Raises:
            TalkError: the connection broke, the server reports an error, or no answer came.
        """
        # In base64 before the clock runs: encoding takes no time from the pace.
        chunks = _chunks(pcm)
        # For example, a reply of 3 s began to arrive a second ago: 2 s of it are still to be heard.
        # The microphone sends silence for that time, 100 chunks, since a real one does not stop.
        pause_s = max(0.0, self._playing_until_s - self._clock.now_s())
        num_pause_chunks = int(pause_s * 1000 / CHUNK_MS)
        first_chunk = self._num_sent_chunks + num_pause_chunks
        # The server counts milliseconds from the session's first sample, a turn from its own.
        answer = _Answer(self._clock, self._show, first_chunk * CHUNK_MS)
        started_s = self._clock.now_s() + num_pause_chunks * CHUNK_MS / 1000
        say_s = (num_pause_chunks + len(chunks)) * CHUNK_MS / 1000
        # Both run side by side, as a person's do: a server that answers early is heard while speech
        # goes on.
        async with asyncio.TaskGroup() as tasks:
            microphone = tasks.create_task(
                self._speak(num_pause_chunks, chunks, answer), name="microphone"
            )
            ears = tasks.create_task(self._listen(answer, say_s), name="ears")
            await answer.ended.wait()
            microphone.cancel()
            ears.cancel()
        if answer.error is not None:
            raise answer.error
        turn = answer.turn(started_s)
        if turn.reply_at_ms is not None:
            # From its first sound on a reply is heard without a pause: it arrives faster than it is
            # spoken.
            self._playing_until_s = started_s + (turn.reply_at_ms + turn.audio_ms) / 1000
        return turn

    async def truncate(self, turn: Turn, heard_ms: int) -> Truncation | None:
        """Stop hearing the last reply, as somebody does who talks over it.

        The next turn begins as soon as that much has been heard.

        Args:
            turn: the last one.
            heard_ms: how much of the reply's audio was heard.

        Returns:
            What the server keeps of the reply, or None if it was heard to its end.

        Raises:
            TalkError: the connection broke, or the server refuses.
        """
        if turn.item_id is None or heard_ms >= turn.audio_ms:
            return None
        item = {"item_id": turn.item_id}
        truncate = {"content_index": 0, "audio_end_ms": heard_ms}
        await self._send("conversation.item.truncate", **item, **truncate)
        await self._expect("conversation.item.truncated")
        # For example, 1,200 ms of 3,000 were heard: the next turn begins 1.8 s sooner.
        self._playing_until_s -= (turn.audio_ms - heard_ms) / 1000
        # `conversation.item.truncated` does not say which words are left; the item itself does.
        await self._send("conversation.item.retrieve", **item)
        retrieved = await self._expect("conversation.item.retrieved")
        heard = "".join(part.get("transcript") or "" for part in retrieved["item"]["content"])
        return Truncation(turn.item_id, heard_ms, heard.strip())

    async def _send(self, kind: str, **fields: Any) -> None:  # Any: JSON
        try:
            await self._socket.send(json.dumps({"type": kind, **fields}))
        except ConnectionClosed as error:
            raise TalkError(f"the server closed the connection: {error}") from error

    async def _speak(self, num_pause_chunks: int, chunks: list[str], answer: _Answer) -> None:
        """Send silence, then the chunks, then silence for as long as it takes."""
        silence = _chunks(np.zeros(CHUNK_SAMPLES, dtype=np.float32))[0]
        begin_s = self._clock.now_s()
        everything = itertools.chain(
            itertools.repeat(silence, num_pause_chunks), chunks, itertools.repeat(silence)
        )
        with contextlib.suppress(ConnectionClosed):  # the ears hear of it too
            for number, chunk in enumerate(everything):
                # A chunk is sent when its last sample has been spoken, and no delay adds up.
                due_s = begin_s + (number + 1) * CHUNK_MS / 1000
                await self._clock.sleep(max(0.0, due_s - self._clock.now_s()))
                await self._socket.send(chunk)
                self._num_sent_chunks += 1
                if number + 1 == num_pause_chunks + len(chunks):
                    answer.all_sent()

    async def _listen(self, answer: _Answer, say_s: float) -> None:
        """Take events until the turn is complete; it may last as long as it likes."""
        now_s = asyncio.get_running_loop().time
        # While the user speaks the server may be silent: patience counts from the end of that, or
        # from the last event, whatever is later.
        patient_until_s = now_s() + say_s + _PATIENCE_S
        try:
            async with asyncio.timeout_at(patient_until_s) as patience:
                while not answer.ended.is_set():
                    answer.take(json.loads(await self._socket.recv()))
                    patience.reschedule(max(patient_until_s, now_s() + _PATIENCE_S))
        except TimeoutError:
            answer.fail_for_silence()
        except ConnectionClosed as error:
            answer.fail(f"the server closed the connection: {error}")

    async def _expect(self, kind: str) -> dict[str, Any]:
        """Read on until an event of this type comes, and return it."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                event: dict[str, Any]
                while (event := json.loads(await self._socket.recv()))["type"] != kind:
                    if event["type"] == "error":
                        raise TalkError(f"the server refuses: {event['error'].get('message')}")
                return event
        except TimeoutError as error:
            raise TalkError(f"the server does not answer: no {kind}") from error
        except ConnectionClosed as error:
            raise TalkError(f"the server closed the connection: {error}") from error


@contextlib.asynccontextmanager
async def open_conversation(
    url: str,
    *,
    voice: str | None = None,
    key: str | None = None,
    show: Show = _show_nothing,
    clock: Clock | None = None,
) -> AsyncIterator[Conversation]:
    """Connect to a server and set a session up.

    Args:
        url: as people write it; see `realtime_url`.
        voice: by name; None for the server's default.
        key: API key, for a server that wants one.
        show: called with words as they are heard and as they are replied.
        clock: tells the time; the real one by default.

    Raises:
        TalkError: nobody answers there, or the server refuses.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        # Replies come in messages of any size, and squeezing base64 audio only takes time.
        socket = await connect(
            realtime_url(url), additional_headers=headers, max_size=None, compression=None
        )
    except (OSError, InvalidHandshake, InvalidURI, TimeoutError) as error:
        raise TalkError(f"cannot connect to {url}: {error}") from error
    async with socket:
        conversation = Conversation(socket, show=show, clock=clock)
        await conversation.set_up(voice)
        yield conversation


def realtime_url(url: str) -> str:
    """Complete a server's address: scheme, path and model may be left out.

    >>> realtime_url("127.0.0.1:8000")
    'ws://127.0.0.1:8000/v1/realtime?model=starter'
    >>> realtime_url("https://example.org/v1/realtime?model=moshi")
    'wss://example.org/v1/realtime?model=moshi'
    """
    parts = urlsplit(url if "://" in url else f"ws://{url}")
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    query = parts.query if "model" in parse_qs(parts.query) else urlencode({"model": "starter"})
    path = parts.path if parts.path not in {"", "/"} else "/v1/realtime"
    return urlunsplit((scheme, parts.netloc, path, query, ""))


def _chunks(pcm: Pcm) -> list[str]:
    """Cut audio, completed with silence, into `input_audio_buffer.append` events."""
    # For example, 1,000 samples become 1,440: three chunks of 480.
    padded = np.pad(pcm, (0, -len(pcm) % CHUNK_SAMPLES))
    return [
        json.dumps(
            {
                "type": "input_audio_buffer.append",
                "audio": base64.b64encode(encode_pcm(chunk)).decode(),
            }
        )
        for chunk in padded.reshape(-1, CHUNK_SAMPLES)
    ]
