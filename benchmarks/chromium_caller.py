"""A call from a headless Chromium, through the client that Parley gives to pages.

What the microphone says is a file. When Chromium captured each burst, its own frames say: they
carry their capture time. When a burst can be heard, the audio context says: it knows when what it
renders leaves for the device. The page's clock is set against ours by asking it.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.chromium import RATE_HZ, Microphone, Page, browsing
from benchmarks.probe_server import burst

_CALIBRATIONS = 30
# Of a frame that a device hands over, the first sample is as old as the frame is long.
_SCRIPT = """
(async () => {
  const { Parley, openMicrophone } = await import("/parley-client.js");
  const unprocessed = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const parley = new Parley({ session: { audio: { input: { turn_detection: null } } } });
  Object.assign(window, { parley, said: [], heard: [], sinkMs: 0 });
  await parley.connect({ microphone: null });
  window.sessionId = parley.inForce.id;
  const THRESHOLD = 0.1;
  const GAP_MS = 100;
  const note = (list, atMs) => { if (atMs - (list.at(-1) ?? -Infinity) > GAP_MS) list.push(atMs); };
  parley.on("sound", ({ who, samples, atMs }) => {
    if (who !== "assistant") return;
    const at = samples.findIndex((sample) => Math.abs(sample) > THRESHOLD);
    if (at < 0) return;
    // `atMs` is the quantum that completed the chunk; the context says when that is at the device.
    const { contextTime, performanceTime } = parley.context.getOutputTimestamp();
    const now = performance.now();
    const ahead = (parley.context.currentTime - contextTime) * 1000 - (now - performanceTime);
    sinkMs = Math.max(0, ahead);
    note(heard, atMs - (samples.length - at) / 24);
  });
  window.speak = async () => {
    const track = await openMicrophone("", unprocessed);
    await parley.setMicrophone(track);
    track.enabled = true; // by hand no turn has begun
    const frames = new MediaStreamTrackProcessor({ track: track.clone() }).readable.getReader();
    (async () => {
      for (;;) {
        const { value: frame, done } = await frames.read();
        if (done) return;
        const samples = new Float32Array(frame.numberOfFrames);
        frame.copyTo(samples, { planeIndex: 0, format: "f32-planar" });
        const at = samples.findIndex((sample) => Math.abs(sample) > THRESHOLD);
        const age = ((frame.numberOfFrames - at) / frame.sampleRate) * 1000;
        if (at >= 0) note(said, frame.timestamp / 1000 - age);
        frame.close();
      }
    })();
  };
})()
"""


@dataclass(slots=True)
class ChromiumCaller:
    """One call.

    Attributes:
        page: the page that has the call.
        session_id: of its session.
    """

    page: Page
    session_id: str

    async def ask(self) -> None:
        """Ask for a reply."""
        await self.page.run("parley.send({ type: 'response.create' })")

    async def noted(self) -> tuple[list[float], list[float], float]:
        """Return when bursts were captured and rendered, in seconds, and how far the device is."""
        offset_s = await _clock_offset_s(self.page)
        said, heard, sink_ms = await self.page.run("[said, heard, sinkMs]")
        captured_s = [at_ms / 1000 + offset_s for at_ms in said]
        heard_s = [at_ms / 1000 + offset_s for at_ms in heard]
        return captured_s, heard_s, sink_ms / 1000

    async def leave(self) -> None:
        """Hang up."""
        await self.page.run("parley.hangUp()")


async def _clock_offset_s(page: Page) -> float:
    """Return what to add to the page's clock: the quickest of some questions knows it best."""
    # As NTP does (RFC 5905, section 10, the clock filter): the answer that took least time is off
    # by least, by half of that time at most. For example, asked at 10.000 s, answered at 10.002 s
    # with 4,000 ms: the page's clock is 6.001 s behind ours, to a millisecond.
    best = (float("inf"), 0.0)
    for _ in range(_CALIBRATIONS):
        began_s = time.monotonic()
        page_ms = await page.run("performance.now()")
        ended_s = time.monotonic()
        best = min(best, (ended_s - began_s, (began_s + ended_s) / 2 - page_ms / 1000))
    return best[1]


def _bursts(seconds: float) -> np.ndarray:
    """Return bursts at random places: int16 [samples] at 48 kHz."""
    draw = np.random.default_rng(6)
    pcm = np.zeros(int(seconds * RATE_HZ), dtype=np.float32)
    # A second of silence first: the call is up and buffers have settled when the first burst comes.
    at = RATE_HZ
    while at < len(pcm) - RATE_HZ:
        length = RATE_HZ // 10
        pcm[at : at + length] = burst(length, 0, RATE_HZ)
        # Further apart than `_GAP_MS` of the script, or two would be noted as one.
        at += int(draw.uniform(0.32, 0.52) * RATE_HZ)
    return (pcm * 32_767).astype(np.int16)


@asynccontextmanager
async def calling_from_chromium(port: int, seconds: float) -> AsyncIterator[ChromiumCaller]:
    """Call a server, and speak for so long."""
    with tempfile.TemporaryDirectory(prefix="parley-chromium-") as folder:
        microphone = Microphone(Path(folder) / "microphone.wav")
        url = f"http://127.0.0.1:{port}/"
        async with browsing(url, Path(folder) / "profile", microphone.path) as page:
            await page.run(_SCRIPT, as_click=True)
            microphone.put(_bursts(seconds))
            await page.run("speak()")
            await asyncio.sleep(1.0)  # buffers settle
            yield ChromiumCaller(page, await page.run("sessionId"))
