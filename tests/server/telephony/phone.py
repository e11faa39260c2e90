"""The far end of a call: it speaks a provider's protocol, and plays when it is told to."""

import asyncio
import base64
import contextlib
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
import wave
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from model.engine.local import LocalEngine
from model.messages import Engine
from model.scripted.script import parse_script
from server.audio.g711 import decode_g711, encode_g711
from server.audio.resample import StreamResampler
from server.config.models import ServedSettings
from server.config.records import RecordingSettings
from server.config.server import ServerSettings
from server.config.settings import Settings
from server.config.telephony import TelephonySettings
from server.telephony.signatures import twilio_signature
from tests.fakes.scripted import scripted_engine
from tests.server.serving import Served, serving
from tests.server.sounds import silence

TIMEOUT_S = 120.0  # a busy machine, and a model on it
TOKEN = "an-auth-token-of-twilio"  # noqa: S105 - of nobody
KEY = "a-key-of-sixteen-or-more"
STREAM_TOKEN = "a-token-of-at-least-thirty-two-characters"  # noqa: S105 - the same
PRIVATE_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC_KEY = base64.b64encode(PRIVATE_KEY.public_key().public_bytes_raw()).decode()
PUBLIC_URL = "http://127.0.0.1:1"
CALL_ID = "CA0123456789"
RATE_HZ = 8_000
ASSETS = Path(__file__).resolve().parents[2] / "assets"
_FRAME = RATE_HZ * 20 // 1000

HEARS = "[hello, what is the capital of france]"
STORY = "[tell me a story, hello]"
SCRIPT = """
hear: [hello, what is the capital of france]
pace: { first_output_ms: 20, words_per_minute: 300, real_time_factor: 0.01 }
reply:
  - when: { user: hello }
    say: hello there
  - when: { user: "42" }
    say: you pressed forty two
  - when: { user: france }
    say: paris it is
  - say: once upon a time there was a very long story that went on and on and on without an end
"""


@asynccontextmanager
async def answering(
    engine: Engine | Mapping[str, Sequence[Engine]] | None = None,
    *,
    max_sessions: int = 2,
    models: Mapping[str, ServedSettings] | None = None,
    recordings: RecordingSettings | None = None,
    **telephony: Any,
) -> AsyncIterator[Served]:
    """Serve callers of both providers, with one model or with several."""
    engine = engine or script_engine(max_sessions)
    given = {
        "public_url": PUBLIC_URL,
        "twilio": {"auth_tokens": [TOKEN]},
        "telnyx": {"public_key": PUBLIC_KEY, "stream_token": STREAM_TOKEN},
    }
    settings = Settings(
        server=ServerSettings(api_keys=(KEY,)),
        telephony=TelephonySettings.model_validate(given | telephony),
        models=models or {},
        recordings=recordings or RecordingSettings(),
    )
    async with serving(engine, settings) as served:
        yield served
        phone = served.app.state.phone
        assert phone is None or phone.num_calls == 0, "no call is remembered"


def recording(name: str) -> np.ndarray:
    """Return one of the kept questions: float32 [samples] at 8 kHz."""
    with wave.open(str(ASSETS / f"{name}.wav")) as file:
        pcm = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
        rate_hz = file.getframerate()
    return StreamResampler(rate_hz, RATE_HZ).feed(pcm.astype(np.float32) / np.float32(32_768))


def script_engine(max_sessions: int = 2, hears: str = HEARS) -> LocalEngine:
    """Return an engine that follows the script, and understands turns as it is told to."""
    script = parse_script(SCRIPT.replace(HEARS, hears), "test")
    return scripted_engine(script, max_sessions=max_sessions, ahead_ms=1_000)


async def post(served: Served, place: str, body: bytes, **headers: str) -> tuple[int, str]:
    """Post to the server; returns status and text."""

    def ask() -> tuple[int, str]:
        url = f"http://127.0.0.1:{served.port}{place}"
        request = urllib.request.Request(url, body, headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    return await asyncio.to_thread(ask)


async def dial_twilio(served: Served, query: str = "", **fields: str) -> tuple[int, str]:
    """Ask what to do with a call, as Twilio does."""
    place = f"/v1/telephony/twilio{query}"
    form = {"CallSid": CALL_ID, "From": "+15550100", "To": "+15550199", **fields}
    signature = twilio_signature(TOKEN, f"{PUBLIC_URL}{place}", [*form.items()])
    headers = {"X-Twilio-Signature": signature}
    return await post(served, place, urllib.parse.urlencode(form).encode(), **headers)


async def dial_telnyx(served: Served, timestamp: int | None = None) -> tuple[int, str]:
    """Ask what to do with a call, as Telnyx does."""
    body = urllib.parse.urlencode({"CallSid": "v3:1", "From": "+1", "To": "+2"}).encode()
    stamp = f"{int(time.time()) if timestamp is None else timestamp}"
    signature = base64.b64encode(PRIVATE_KEY.sign(stamp.encode() + b"|" + body)).decode()
    headers = {"telnyx-timestamp": stamp, "telnyx-signature-ed25519": signature}
    return await post(served, "/v1/telephony/telnyx", body, **headers)


def stream_of(answer: str) -> tuple[str, dict[str, str], dict[str, str]]:
    """Return the address of an answer's stream, its parameters, and its attributes."""
    (stream,) = ET.fromstring(answer).findall("./Connect/Stream")  # noqa: S314 - it is our own
    parameters = {each.attrib["name"]: each.attrib["value"] for each in stream}
    return stream.attrib["url"], parameters, dict(stream.attrib)


class Phone:
    """A telephone and its provider. It plays nothing but what `play` tells it to."""

    def __init__(self, socket: ClientConnection, provider: str = "twilio") -> None:
        self.socket = socket
        self.provider = provider
        self.cleared = 0
        self.heard = bytearray()  # what was played to the caller
        self._queued: list[bytes | str] = []
        self._chunk = 0
        self._news = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None

    @property
    def _stream(self) -> dict[str, str]:
        return {"streamSid": "MZ1"} if self.provider == "twilio" else {"stream_id": "MZ1"}

    async def send(self, event: str, **more: Any) -> None:
        """Send a message."""
        await self.socket.send(json.dumps({"event": event, **self._stream, **more}))

    async def begin(self, call_id: str = CALL_ID, **parameters: str) -> None:
        """Connect and start."""
        self._reader = asyncio.create_task(self._read())
        await self.socket.send(
            json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"})
        )
        if self.provider == "twilio":
            form = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
            start = {"callSid": call_id, "tracks": ["inbound"], "mediaFormat": form}
            start |= {"customParameters": parameters, **self._stream}
        else:
            form = {"encoding": "PCMU", "sample_rate": 8000, "channels": 1}
            start = {"call_control_id": call_id, "media_format": form, "from": "+1", "to": "+2"}
            start |= {"custom_parameters": parameters}
        await self.send("start", start=start)

    async def say(self, pcm: np.ndarray) -> None:
        """Speak: float32 [samples] at 8 kHz, 20 ms a message."""
        data = encode_g711(pcm.astype(np.float32), "mu")
        for start in range(0, len(data), _FRAME):
            payload = base64.b64encode(data[start : start + _FRAME]).decode()
            self._chunk += 1
            media = {"track": "inbound", "chunk": f"{self._chunk}", "payload": payload}
            media |= {"timestamp": f"{self._chunk * 20}"}
            await self.send("media", media=media)

    async def speak(self, name: str = "two_plus_two", seconds: float = 10.0) -> None:
        """Say a recording, or the beginning of its words, between silences."""
        words = recording(name)[int(0.2 * RATE_HZ) :][: int(seconds * RATE_HZ)]
        await self.say(np.concatenate([silence(0.5, RATE_HZ), words, silence(1.0, RATE_HZ)]))

    async def press(self, keys: str) -> None:
        """Press keys."""
        for digit in keys:
            await self.send("dtmf", dtmf={"track": "inbound_track", "digit": digit})

    async def play(self, num_marks: int | None = None) -> int:
        """Play what waits, up to so many marks, and send them back; returns how many."""
        played = 0
        while self._queued and (num_marks is None or played < num_marks):
            first = self._queued.pop(0)
            if isinstance(first, bytes):
                self.heard += first
            else:
                played += 1
                await self.send("mark", mark={"name": first})
        return played

    async def queued(self, num_marks: int) -> None:
        """Wait until so many marks wait to be played."""
        await self.until(lambda: sum(isinstance(each, str) for each in self._queued) >= num_marks)

    async def until(self, is_so: Any) -> None:
        """Wait until something is so, which messages bring about."""
        async with asyncio.timeout(TIMEOUT_S):
            while not is_so():
                self._news.clear()
                await self._news.wait()

    async def ended(self) -> int | None:
        """Wait until the server closes; returns the code."""
        async with asyncio.timeout(TIMEOUT_S):
            assert self._reader is not None
            await self._reader
        return self.socket.close_code

    @property
    def queued_pcm(self) -> np.ndarray:
        """Return the sound that waits: float32 [samples] at 8 kHz."""
        data = b"".join(each for each in self._queued if isinstance(each, bytes))
        return decode_g711(data, "mu")

    async def _read(self) -> None:
        try:
            async for text in self.socket:
                await self._take(json.loads(text))
                self._news.set()
        except ConnectionClosed:
            pass

    async def _take(self, message: dict[str, Any]) -> None:
        for name, value in self._stream.items():
            assert message[name] == value, message
        match message["event"]:
            case "media":
                self._queued.append(base64.b64decode(message["media"]["payload"]))
            case "mark":
                # A mark with nothing before it comes back at once; that is never sent here.
                self._queued.append(message["mark"]["name"])
            case "clear":
                self.cleared += 1
                names = [each for each in self._queued if isinstance(each, str)]
                self._queued.clear()
                for name in names:
                    await self.send("mark", mark={"name": name})
            case other:
                raise AssertionError(other)


def signed_url(served: Served, url: str) -> tuple[str, dict[str, str]]:
    """Return where to connect to for an address of a stream, and what Twilio sends with it."""
    local = f"{served.url}{re.sub(r'^ws://[^/]+', '', url)}"
    return local, {"X-Twilio-Signature": twilio_signature(TOKEN, url)}


@asynccontextmanager
async def on_the_phone(
    served: Served, query: str = "", call_id: str = CALL_ID, **begin: Any
) -> AsyncIterator[Phone]:
    """Call by Twilio, from the webhook on; the caller hangs up in the end."""
    status, answer = await dial_twilio(served, query, CallSid=call_id)
    assert status == 200, answer
    url, parameters, _ = stream_of(answer)
    local, headers = signed_url(served, url)
    async with connect(local, additional_headers=headers) as socket:
        phone = Phone(socket)
        await phone.begin(call_id, **parameters, **begin)
        yield phone
        with contextlib.suppress(ConnectionClosed):  # the server may have ended it
            await phone.send("stop", stop={"callSid": call_id})
        await phone.ended()


@asynccontextmanager
async def beside(served: Served, call_id: str = CALL_ID) -> AsyncIterator["Backend"]:
    """Join a call as its application does, by the provider's own id."""
    headers = {"authorization": f"Bearer {KEY}"}
    async with asyncio.timeout(TIMEOUT_S):
        while not served.app.state.phone.has(call_id):  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0)
    url = f"{served.url}/v1/realtime?call_id={call_id}"
    async with connect(url, additional_headers=headers) as socket:
        backend = Backend(socket)
        await backend.until("session.created")
        yield backend


class Backend:
    """An application beside a call."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.seen: list[dict[str, Any]] = []

    async def send(self, kind: str, **event: Any) -> None:
        """Send an event."""
        await self.socket.send(json.dumps({"type": kind, **event}))

    async def item(self, item_id: str) -> dict[str, Any]:
        """Return an item of the conversation."""
        await self.send("conversation.item.retrieve", item_id=item_id)
        retrieved = await self.until("conversation.item.retrieved")
        return dict(retrieved["item"])

    async def until(self, kind: str) -> dict[str, Any]:
        """Receive up to the first event of a kind."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                event: dict[str, Any] = json.loads(await self.socket.recv())
                self.seen.append(event)
                if event["type"] == kind:
                    return event


async def played_to_the_end(phone: Phone, backend: Backend) -> dict[str, Any]:
    """Play whatever comes until a reply is over; returns the event that says so."""

    async def play() -> None:
        while True:
            await phone.queued(1)
            await phone.play()

    playing = asyncio.create_task(play())
    try:
        return await backend.until("output_audio_buffer.stopped")
    finally:
        playing.cancel()
