"""A headless Chromium with a microphone that plays a file, driven by its own protocol (CDP)."""

import asyncio
import base64
import contextlib
import json
import shutil
import urllib.request
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import websockets

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
# Nothing waits for so long but what has failed: a machine may be busy with other things.
PATIENCE_S = 120.0
RATE_HZ = 48_000

# Each of them takes something away that a machine without a screen or a network does not have, or
# that would make two runs differ.
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--no-first-run",
    "--disable-gpu",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    # A page that nobody sees is a page like any other.
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
    # Any free port; which one it is stands in the first lines of its error output.
    "--remote-debugging-port=0",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    # Without this there is no candidate where loopback is the only network.
    "--allow-loopback-in-peer-connection",
)


class Microphone:
    """The file that the browser's microphone plays, from its beginning whenever it is opened.

    Args:
        path: of the file; it is silent until something is put into it.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        self.path = path
        self.put(np.zeros(RATE_HZ // 10, dtype=np.int16))

    def put(self, pcm: npt.NDArray[np.int16]) -> None:
        """Play other sound from the next opening on: int16 [samples] at 48 kHz."""
        with wave.open(str(self.path), "wb") as file:
            file.setparams((1, 2, RATE_HZ, 0, "NONE", "not compressed"))
            file.writeframes(pcm.tobytes())


class Page:
    """One page."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self._socket = socket
        self._number = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.log: list[str] = []
        """What the page wrote to its console, and the errors that nobody caught."""

    async def listen(self) -> None:
        """Receive until the browser is gone."""
        with contextlib.suppress(websockets.ConnectionClosed):
            async for text in self._socket:
                message = json.loads(text)
                if (future := self._answers.pop(message.get("id", 0), None)) is not None:
                    if not future.done():
                        future.set_result(message)
                elif message.get("method") in {"Runtime.consoleAPICalled", "Log.entryAdded"}:
                    self.log.append(json.dumps(message["params"]))
                elif message.get("method") == "Runtime.exceptionThrown":
                    self.log.append(json.dumps(message["params"]["exceptionDetails"]))
        for future in self._answers.values():
            if not future.done():
                future.set_exception(ConnectionError("the browser has ended"))

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol."""
        self._number += 1
        # Answers come in any order and name their question, as in JSON-RPC. Source: Chrome DevTools
        # Protocol, https://chromedevtools.github.io/devtools-protocol/.
        future = self._answers[self._number] = asyncio.get_running_loop().create_future()
        await self._socket.send(
            json.dumps({"id": self._number, "method": method, "params": params})
        )
        answer = await future
        assert "error" not in answer, answer
        return dict(answer["result"])

    async def run(self, script: str, *, as_click: bool = False) -> Any:
        """Evaluate an expression, and wait for it if it is a promise.

        Args:
            script: JavaScript.
            as_click: whether the page shall take it for what a user did.
        """
        result = await self.send(
            "Runtime.evaluate",
            expression=script,
            awaitPromise=True,
            returnByValue=True,
            userGesture=as_click,
        )
        assert "exceptionDetails" not in result, (result, self.log[-5:])
        return result["result"].get("value")

    async def until(self, condition: str) -> Any:
        """Wait until an expression is true; returns its value."""
        # Looked at in the page every 20 ms: a question from here for each look would disturb what
        # is measured.
        script = (
            "new Promise((done) => { const look = () => { const value = (() => "
            f"({condition}))(); if (value) done(value); else setTimeout(look, 20); }}; look(); }})"
        )
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self.run(script)
        except TimeoutError:
            raise AssertionError(f"never: {condition}; {self.log[-5:]}") from None

    async def open(self, url: str) -> None:
        """Go to another page, or the same one anew."""
        # The new page has no such variable. Without it, `complete` might be said by the page
        # before.
        await self.run("window.isOld = true")
        await self.send("Page.navigate", url=url)
        await self.loaded()

    async def loaded(self) -> None:
        """Wait until the page is there, also while there is none for a moment."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(AssertionError):
                    if await self.run("!window.isOld && document.readyState === 'complete'"):
                        return
                await asyncio.sleep(0.05)

    async def click(self, selector: str) -> None:
        """Click on what a selector finds."""
        await self.run(f"document.querySelector({json.dumps(selector)}).click()", as_click=True)

    async def fill(self, selector: str, value: str) -> None:
        """Type or choose a value in a field."""
        await self.run(
            f"(() => {{ const field = document.querySelector({json.dumps(selector)});"
            f" field.value = {json.dumps(value)}; for (const name of ['input', 'change'])"
            " field.dispatchEvent(new Event(name, { bubbles: true })); })()"
        )

    async def choose(self, selector: str, path: Path) -> None:
        """Choose a file in a field for files."""
        field = await self.send(
            "Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})"
        )
        await self.send(
            "DOM.setFileInputFiles", files=[str(path)], objectId=field["result"]["objectId"]
        )

    async def screenshot(self, path: Path) -> None:
        """Save what is seen, as PNG."""
        shot = await self.send("Page.captureScreenshot", format="png")
        await asyncio.to_thread(path.write_bytes, base64.b64decode(shot["data"]))


@asynccontextmanager
async def browsing(
    url: str, profile: Path, microphone: Path | None = None, *flags: str
) -> AsyncIterator[Page]:
    """Open a page in a browser of its own.

    Args:
        url: of the page.
        profile: an empty folder.
        microphone: the file that it plays; None for beeps.
        flags: more of them for the browser.
    """
    assert CHROMIUM is not None
    source = (
        # "%noloop": silence after its end, where Chromium would begin anew.
        [] if microphone is None else [f"--use-file-for-fake-audio-capture={microphone}%noloop"]
    )
    process = await asyncio.create_subprocess_exec(
        CHROMIUM,
        *_FLAGS,
        *source,
        *flags,
        f"--user-data-dir={profile}",
        "about:blank",
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    assert process.stderr is not None
    tasks: list[asyncio.Task[Any]] = []
    try:
        async with asyncio.timeout(PATIENCE_S):
            while b"DevTools listening on ws://" not in (line := await process.stderr.readline()):
                assert line, "Chromium ended"
        # A pipe that nobody reads is full after 64 KiB, and then the browser waits.
        tasks.append(asyncio.create_task(process.stderr.read(), name="Chromium's errors"))
        address = line.decode().split("ws://")[1].split("/")[0]
        async with websockets.connect(
            await _debugger(address), max_size=None, compression=None, ping_interval=None
        ) as socket:
            page = Page(socket)
            tasks.append(asyncio.create_task(page.listen(), name="Chromium's answers"))
            for domain in ("Page", "Runtime", "Log"):
                await page.send(f"{domain}.enable")
            await page.open(url)
            yield page
            with contextlib.suppress(ConnectionError, websockets.ConnectionClosed):
                async with asyncio.timeout(10.0):
                    await page.send("Browser.close")
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        await process.wait()
        await asyncio.gather(*tasks)


async def _debugger(address: str) -> str:
    """Return where the browser's page is driven from, once there is one."""

    def targets() -> list[dict[str, str]]:
        with urllib.request.urlopen(f"http://{address}/json") as response:
            return list(json.load(response))

    async with asyncio.timeout(PATIENCE_S):
        while True:
            for target in await asyncio.to_thread(targets):
                if target["type"] == "page":
                    return target["webSocketDebuggerUrl"]
            await asyncio.sleep(0.05)
