"""A client that calls over WebRTC as browsers do: stock aiortc, over the loopback interface."""

import asyncio
import fractions
import json
import re
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aioice.ice
import httpx
import numpy as np
import numpy.typing as npt
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError
from av import AudioFrame, VideoFrame

from server.audio.resample import StreamResampler
from tests.server.serving import Served
from tests.server.sounds import silence

TIMEOUT_S = 30.0
RATE_HZ = 48_000
ASSETS = Path(__file__).resolve().parents[2] / "assets"
_FRAME = 960

# On a machine without a network there is no other address, and this is the one that is served.
aioice.ice.get_host_addresses = lambda *_, **__: ["127.0.0.1"]


def question(name: str, pause_s: float = 0.6) -> npt.NDArray[np.float32]:
    """Return a spoken question from `tests/assets` and a pause after it, at 48 kHz.

    What Opus leaves of a made-up voice, the detector takes for no voice.
    """
    with wave.open(str(ASSETS / f"{name}.wav")) as file:
        rate_hz = file.getframerate()
        pcm = np.frombuffer(file.readframes(file.getnframes()), dtype=np.int16) / 32_768
    resampler = StreamResampler(rate_hz, RATE_HZ)
    spoken = np.concatenate([resampler.feed(pcm.astype(np.float32)), resampler.finish()])
    return np.concatenate([spoken, silence(pause_s, RATE_HZ)])


class Microphone(MediaStreamTrack):
    """Speak what it is given, and silence otherwise, in real time."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._pcm = np.zeros(0, dtype=np.float32)
        self._time = 0
        self._start_s: float | None = None

    def say(self, pcm: npt.NDArray[np.float32]) -> None:
        """Speak after what is being spoken: float32 [samples] at 48 kHz."""
        self._pcm = np.concatenate([self._pcm, pcm])

    async def recv(self) -> AudioFrame:
        """Return the next 20 ms when they are over."""
        loop = asyncio.get_running_loop()
        self._start_s = self._start_s or loop.time()
        self._time += _FRAME
        await asyncio.sleep(max(0.0, self._start_s + self._time / RATE_HZ - loop.time()))
        spoken, self._pcm = self._pcm[:_FRAME], self._pcm[_FRAME:]
        samples = np.zeros(_FRAME, dtype=np.int16)
        samples[: len(spoken)] = (spoken * 32_767).astype(np.int16)
        frame = AudioFrame.from_ndarray(samples[None, :], format="s16", layout="mono")
        frame.sample_rate = RATE_HZ
        frame.pts, frame.time_base = self._time, fractions.Fraction(1, RATE_HZ)
        return frame


class FilmCamera(MediaStreamTrack):
    """Show one colour, and count the frames.

    Args:
        colour: red, green and blue.
        size: width and height.
        fps: frames a second.
    """

    kind = "video"

    def __init__(
        self,
        colour: tuple[int, int, int],
        size: tuple[int, int] = (640, 480),
        fps: int = 15,
    ) -> None:
        super().__init__()
        self.colour = colour
        self.is_on = asyncio.Event()
        self.is_on.set()
        self.num_frames = 0
        self._size = size
        self._fps = fps
        self._start_s = self._next_s = asyncio.get_running_loop().time()

    async def recv(self) -> VideoFrame:
        """Return the next frame when its time has come."""
        loop = asyncio.get_running_loop()
        self.num_frames += 1
        await asyncio.sleep(max(0.0, self._next_s - loop.time()))
        await self.is_on.wait()
        self._next_s = max(self._next_s + 1 / self._fps, loop.time())
        width, height = self._size
        image = np.full((height, width, 3), self.colour, dtype=np.uint8)
        frame = VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
        frame.pts = int((loop.time() - self._start_s) * 90_000)
        frame.time_base = fractions.Fraction(1, 90_000)
        return frame


class Caller:
    """One call under test.

    Args:
        served: the server.
        camera: what it shows; None for no video.
        codec: of the video, such as "video/H264"; None for what aiortc prefers.
    """

    def __init__(
        self, served: Served, camera: FilmCamera | None = None, codec: str | None = None
    ) -> None:
        self._served = served
        self._camera = camera
        self._codec = codec
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.microphone = Microphone()
        self.channel = self.pc.createDataChannel("oai-events")
        self.call_id = self.answer = ""
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.seen: list[dict[str, Any]] = []
        self.heard: list[npt.NDArray[np.int16]] = []
        self.is_closed = asyncio.Event()
        self.is_open = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []
        self.channel.on("message", lambda text: self.events.put_nowait(json.loads(text)))
        self.channel.on("close", self.is_closed.set)
        self.channel.on("open", self.is_open.set)
        self.pc.on("track", self._on_track)

    async def call(self, path: str = "/v1/realtime/calls", **headers: str) -> httpx.Response:
        """Make the offer, and connect."""
        self.pc.addTrack(self.microphone)
        if self._camera is not None:
            shown = self.pc.addTransceiver(self._camera, direction="sendonly")
            if self._codec is not None:
                known = RTCRtpSender.getCapabilities("video").codecs
                shown.setCodecPreferences([each for each in known if each.mimeType == self._codec])
        await self.pc.setLocalDescription(await self.pc.createOffer())
        url = f"http://127.0.0.1:{self._served.port}{path}"
        async with httpx.AsyncClient() as client:
            response = await client.post(
                url,
                content=self.pc.localDescription.sdp,
                headers={"content-type": "application/sdp", **headers},
                timeout=TIMEOUT_S,
            )
        assert response.status_code == 201, response.text
        self.call_id = response.headers["location"].rpartition("/")[2]
        self.answer = response.text
        taken = _without_refusals(response.text, self.pc.localDescription.sdp)
        await self.pc.setRemoteDescription(RTCSessionDescription(taken, "answer"))
        async with asyncio.timeout(TIMEOUT_S):
            await self.is_open.wait()
        return response

    async def show(self, camera: FilmCamera) -> None:
        """Offer a camera in the middle of the call."""
        self.pc.addTransceiver(camera, direction="sendonly")
        await self.pc.setLocalDescription(await self.pc.createOffer())
        url = f"http://127.0.0.1:{self._served.port}/v1/realtime/calls/{self.call_id}"
        async with httpx.AsyncClient() as client:
            response = await client.post(
                url,
                content=self.pc.localDescription.sdp,
                headers={"content-type": "application/sdp"},
                timeout=TIMEOUT_S,
            )
        assert response.status_code == 200, response.text
        self.answer = response.text
        await self.pc.setRemoteDescription(RTCSessionDescription(response.text, "answer"))

    def send(self, **event: Any) -> None:
        """Send an event."""
        self.channel.send(json.dumps(event))

    async def until(self, kind: str) -> dict[str, Any]:
        """Receive up to the first event of a kind."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                event = await self.events.get()
                self.seen.append(event)
                if event["type"] == kind:
                    return event

    async def hang_up(self) -> int:
        """Ask the server to end the call."""
        url = f"http://127.0.0.1:{self._served.port}/v1/realtime/calls/{self.call_id}/hangup"
        async with httpx.AsyncClient() as client:
            return (await client.post(url, timeout=TIMEOUT_S)).status_code

    def _on_track(self, track: MediaStreamTrack) -> None:
        self.tasks.append(asyncio.create_task(self._listen(track), name="loudspeaker"))

    async def _listen(self, track: MediaStreamTrack) -> None:
        try:
            while True:
                frame: Any = await track.recv()
                self.heard.append(frame.to_ndarray()[0, ::2].copy())
        except MediaStreamError:
            return


def _without_refusals(answer: str, offer: str) -> str:
    """Return an answer in which a camera that is refused is one that is never switched on.

    aiortc knows no refused sections, and would wait for a transport of theirs.
    """
    head, *sections = answer.split("m=")
    _, *offered = offer.split("m=")
    ours = next(each for each in sections if not each.startswith("video 0 "))
    for index, section in enumerate(sections):
        if section.startswith("video 0 "):
            kept = [line for line in offered[index].splitlines() if "rtpmap" in line]
            kept += [line for line in offered[index].splitlines() if "fmtp" in line]
            way = [line for line in ours.splitlines() if line[:5] in ("a=ice", "a=fin", "a=set")]
            lines = [section.replace("video 0 ", "video 9 ").rstrip(), *kept, *way, "a=rtcp-mux"]
            sections[index] = "\r\n".join([*lines, ""])
            (mid,) = (line[6:] for line in section.splitlines() if line.startswith("a=mid:"))
            head = re.sub(r"(a=group:BUNDLE[^\r]*)", rf"\1 {mid}", head)
    return "m=".join([head, *sections])


@asynccontextmanager
async def calling(
    served: Served,
    path: str = "/v1/realtime/calls",
    camera: FilmCamera | None = None,
    codec: str | None = None,
) -> AsyncIterator[Caller]:
    """Call, and leave as a browser does."""
    caller = Caller(served, camera, codec)
    try:
        await caller.call(path)
        yield caller
    finally:
        await caller.pc.close()
        await asyncio.gather(*caller.tasks)
