"""Hold spoken conversations with a page, and hear what it plays."""

import base64
import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.chromium import RATE_HZ, Microphone, Page
from model.messages import Pcm
from server.audio.resample import StreamResampler
from tests.server.webrtc.caller import question

HERE = Path(__file__).parent
# Who is not understood says it again; so does a test, on a machine that stutters.
TRIES = 4
CHUNKS_PER_S = 50
_PAUSE_SAMPLES = 1_200  # 50 ms

_PLAYGROUND = """
(async () => {
  const { parley } = await import("/playground/main.js");
  withoutProcessing();
  window.parley = parley;
  window.spy = new Spy();
  parley.on("wire", ({ direction, event }) => { if (direction === "in") spy.take(event); });
  parley.on("sound", ({ who, samples }) => {
    if (who === "user") spy.numChunks += 1;
    else spy.hear(samples);
  });
  parley.on("speaking", ({ who, isSpeaking }) => {
    if (who === "assistant") spy.isSpeaking = isSpeaking;
  });
  const chosen = (source) => new Promise((done) => {
    const stop = parley.on("microphone", () => { stop(); done(); });
    document.querySelector(`[name=source][value=${source}]`).click();
  });
  spy.reopen = async () => {
    await chosen("none");
    await chosen("microphone");
  };
})()
"""


@dataclass(frozen=True, slots=True)
class Turn:
    """What came of something that was said.

    Attributes:
        user: what was understood; empty if nothing was heard.
        reply: the words of the reply.
        heard: what the page played: int16 [samples] at 24 kHz.
    """

    user: str
    reply: str
    heard: npt.NDArray[np.int16]


async def watch(page: Page) -> None:
    """Look into the playground."""
    # Its policy lets no script in but its own; what its console is told is another matter.
    spy = (HERE / "spy.js").read_text().replace("export ", "")
    await page.run(f"(() => {{ {spy}\n Object.assign(window, {{ Spy, withoutProcessing }}); }})()")
    await page.run(_PLAYGROUND)


async def say(page: Page, microphone: Microphone, name: str) -> float:
    """Say a question of `tests/assets`, as soon as the microphone is open; returns its seconds."""
    spoken = question(name, pause_s=0.2)
    microphone.put((spoken * 32_767).astype(np.int16))
    await page.run("spy.reopen()")
    return len(spoken) / RATE_HZ


async def until_said(page: Page, microphone: Microphone, name: str) -> None:
    """Say it, and wait until the page has heard all of it, by the sound's own clock."""
    before = await page.run("spy.numChunks")
    seconds = await say(page, microphone, name)
    await page.until(f"spy.numChunks > {before + round(CHUNKS_PER_S * seconds)}")


async def ask(page: Page, microphone: Microphone, name: str) -> Turn:
    """Say a question once, and wait for the end of its turn."""
    mark, heard = await page.run("[spy.events.length, spy.heard.length]")
    seconds = await say(page, microphone, name)
    last = await page.run("spy.numChunks") + round(CHUNKS_PER_S * (seconds + 5.0))
    turn = await page.until(f"spy.turn({mark}, {last})")
    recording = base64.b64decode(await page.run(f"spy.recording({heard})"))
    return Turn(turn["user"], turn["reply"], np.frombuffer(recording, dtype=np.int16))


def at_16_khz(pcm: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
    """Return a recording as the recogniser takes it.

    Without the silence before and after, and with short pauses: where the machine is busy, a reply
    comes with gaps, and its words are the same.
    """
    resampler = StreamResampler(24_000, 16_000)
    samples: Pcm = (pcm / np.float32(32_768)).astype(np.float32)
    loud = np.flatnonzero(np.abs(samples) > 0.01)
    if loud.size == 0:
        return np.zeros(16_000, dtype=np.float32)
    is_kept = np.zeros(len(samples), dtype=bool)
    for at in loud[np.diff(loud, prepend=-_PAUSE_SAMPLES) > 1]:
        is_kept[max(0, at - _PAUSE_SAMPLES) : at] = True
    for at in loud:
        is_kept[at : at + _PAUSE_SAMPLES] = True
    samples = samples[is_kept]
    return np.concatenate([resampler.feed(samples), resampler.finish()])


@contextmanager
def hosting(*folders: Path) -> Iterator[str]:
    """Serve files on another port of this machine, as another site would; yields its address."""

    class Files(SimpleHTTPRequestHandler):
        def translate_path(self, path: str) -> str:
            name = path.partition("?")[0].lstrip("/")
            found = (folder / name for folder in folders if (folder / name).is_file())
            return str(next(found, Path("/nothing")))

        def log_message(self, *_: Any) -> None:
            """Be silent."""

    Files.extensions_map = {**Files.extensions_map, ".mjs": "text/javascript"}
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Files)) as server:
        thread = threading.Thread(target=server.serve_forever, name="hosting")
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
