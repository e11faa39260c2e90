"""A call from Chromium, with a file for a microphone: what browsers do that aiortc does not."""

import asyncio
import json
import shutil
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import websockets

from tests.server.webrtc.caller import ASSETS
from tests.server.webrtc.serving import taking_calls

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
TIMEOUT_S = 60.0

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]

# Calls, keeps every event, and notes the loudest sample that was heard.
PAGE = """
async () => {
  const pc = new RTCPeerConnection();
  const channel = pc.createDataChannel("oai-events");
  window.call = {pc, channel, events: [], loudest: 0, state: ""};
  channel.onmessage = (message) => window.call.events.push(JSON.parse(message.data));
  channel.onclose = () => { window.call.state = "closed"; };
  const media = await navigator.mediaDevices.getUserMedia({audio: {
    echoCancellation: false, noiseSuppression: false, autoGainControl: false}});
  pc.addTrack(media.getAudioTracks()[0], media);
  pc.ontrack = (track) => {
    const audio = new Audio();
    audio.srcObject = new MediaStream([track.track]);
    audio.play();
    const context = new AudioContext();
    const analyser = context.createAnalyser();
    context.createMediaStreamSource(audio.srcObject).connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    setInterval(() => {
      analyser.getFloatTimeDomainData(samples);
      window.call.loudest = Math.max(window.call.loudest, ...samples);
    }, 20);
  };
  await pc.setLocalDescription();
  const answer = await fetch("/v1/realtime/calls", {
    method: "POST", body: pc.localDescription.sdp, headers: {"Content-Type": "application/sdp"}});
  window.call.path = answer.headers.get("Location");
  await pc.setRemoteDescription({type: "answer", sdp: await answer.text()});
  return answer.status;
}
"""


class Page:
    """One page, driven by Chromium's own protocol."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self._socket = socket
        self._number = 0

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol."""
        self._number += 1
        call = {"id": self._number, "method": method, "params": params}
        await self._socket.send(json.dumps(call))
        while True:
            answer: dict[str, Any] = json.loads(await self._socket.recv())
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])

    async def run(self, script: str) -> Any:
        """Evaluate an expression, and wait for it if it is a promise."""
        result = await self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def until(self, condition: str) -> None:
        """Wait in the page until a condition holds."""
        await self.run(
            "new Promise((done) => { const timer = setInterval(() => {"
            f" if ({condition}) {{ clearInterval(timer); done(); }} }}, 20); }})"
        )

    async def events(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of a kind so far."""
        script = f"window.call.events.filter((event) => event.type === {json.dumps(kind)})"
        return list(await self.run(script))


@asynccontextmanager
async def browsing(url: str, microphone: Path, profile: Path) -> AsyncIterator[Page]:
    """Open a page in a browser of its own."""
    assert CHROMIUM is not None
    process = await asyncio.create_subprocess_exec(
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        f"--user-data-dir={profile}",
        "--remote-debugging-port=0",
        "--autoplay-policy=no-user-gesture-required",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}%noloop",
        # Without this there is no candidate where loopback is the only network.
        "--allow-loopback-in-peer-connection",
        url,
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(TIMEOUT_S):
            while b"DevTools listening on ws://" not in (line := await process.stderr.readline()):
                assert line, "Chromium ended"
        address = line.decode().split("ws://")[1].split("/")[0]
        draining = asyncio.create_task(process.stderr.read())

        def targets() -> Any:
            with urllib.request.urlopen(f"http://{address}/json") as response:
                return json.load(response)

        # Before it is there, the page is an empty one, which has no microphone.
        pages: list[Any] = []
        async with asyncio.timeout(TIMEOUT_S):
            while not pages:
                pages = [t for t in await asyncio.to_thread(targets) if t["url"] == url]
        async with websockets.connect(
            pages[0]["webSocketDebuggerUrl"], max_size=None, compression=None
        ) as socket:
            yield Page(socket)
        process.terminate()
        await draining
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def test_a_page_calls(tmp_path: Path) -> None:
    """It speaks, hears the reply, is hung up on, and nothing is left of the call."""
    microphone = ASSETS / "two_plus_two.wav"
    async with (
        asyncio.timeout(TIMEOUT_S),
        taking_calls() as served,
        browsing(f"http://127.0.0.1:{served.port}/healthz", microphone, tmp_path) as page,
    ):
        await page.until("isSecureContext && document.readyState === 'complete'")
        assert await page.run(f"({PAGE})()") == 201
        await page.until("window.call.events.some((e) => e.type === 'session.created')")
        await page.until("window.call.events.some((e) => e.type.endsWith('buffer.stopped'))")
        (said,) = await page.events("response.output_audio_transcript.done")
        assert said["transcript"] == "hello there"
        assert not await page.events("response.output_audio.delta")
        await page.until("window.call.loudest > 0.05")
        hangup = "fetch(window.call.path + '/hangup', {method: 'POST'}).then((r) => r.status)"
        assert await page.run(hangup) == 200
        await page.until("window.call.state === 'closed'")
        await served.app.state.calls.until_none()
        assert served.app.state.gateway.link.num_sessions == 0
