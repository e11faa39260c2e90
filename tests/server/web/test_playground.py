"""The playground with a script: interruptions, tools, errors, and what calls leave behind."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.chromium import CHROMIUM, PATIENCE_S, Microphone, Page, browsing
from server.names import ROOT
from tests.server.mcp.serving import serving as serving_mcp
from tests.server.mcp.serving import weather_server
from tests.server.serving import Served
from tests.server.web.scripted import KEY, scripted, speak
from tests.server.web.talking import ask, until_said, watch

# The replies that the page shows.
SAID = "[...document.querySelectorAll('.said.assistant p')].map((p) => p.textContent)"
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]


@asynccontextmanager
async def visiting(served: Served, folder: Path) -> AsyncIterator[tuple[Page, Microphone]]:
    """Open the playground."""
    microphone = Microphone(folder / "microphone.wav")
    url = f"http://127.0.0.1:{served.port}/"
    async with browsing(url, folder / "profile", microphone.path) as page:
        await watch(page)
        yield page, microphone


async def connect(page: Page, transport: str) -> None:
    """Press the buttons."""
    await page.click(f"[name=transport][value={transport}]")
    await page.click("#connect")
    await page.until("parley.status === 'connected'")


async def write(page: Page, text: str) -> None:
    """Type a message, and send it."""
    await page.fill("#text", text)
    await page.click("#send")


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something in this process that has no event."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("transport", ["webrtc", "websocket"])
async def test_talking_over_a_reply(transport: str, tmp_path: Path) -> None:
    """It stops; what was not heard is struck through, and forgotten by the model."""
    async with scripted() as served, visiting(served, tmp_path / "b") as (page, microphone):
        await connect(page, transport)
        await write(page, "please count")
        await page.until("spy.numAudible() > 50")
        reply = await speak(page, microphone)
        cut = await page.until("document.querySelector('del')?.textContent")
        heard = await page.run("document.querySelector('del').closest('p').firstChild.textContent")
        assert heard.startswith("one two three")
        assert cut.endswith("sixteen")
        assert f"user: please count; assistant: {heard.strip()};" in reply
        assert "sixteen" not in reply


async def test_push_to_talk(tmp_path: Path) -> None:
    """By the space bar: the turn is what was said while it was held."""
    async with scripted() as served, visiting(served, tmp_path / "b") as (page, microphone):
        await page.fill("[name=detection]", "none")
        await connect(page, "webrtc")
        assert await page.run("document.activeElement.id") == "press"
        assert await page.run("parley.microphone.enabled") is False
        key = {"code": "Space", "key": " ", "windowsVirtualKeyCode": 32}
        await page.send("Input.dispatchKeyEvent", type="keyDown", **key)
        await page.until("document.querySelector('#press').ariaPressed === 'true'")
        await until_said(page, microphone, "two_plus_two")
        await page.send("Input.dispatchKeyEvent", type="keyUp", **key)
        words = "[...document.querySelectorAll('.said.user p')].map((each) => each.textContent)"
        await page.until(f"{words}.includes('what did i hear')")
        assert not await page.run("spy.events.some((e) => e.type.endsWith('speech_started'))")


async def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """Mute, a device that goes, reload, hang-up: no slot, task, port or descriptor."""
    async with scripted() as served:
        async with visiting(served, tmp_path / "first") as (page, _):
            await come_and_go(served, page)
        # A browser keeps connections for its next question; it is gone now, and they follow it.
        await until(lambda: not served.state.connections)
        num_before = num_descriptors()
        tasks_before = asyncio.all_tasks()
        async with visiting(served, tmp_path / "second") as (page, microphone):
            await mute_and_lose(page, microphone)
            await come_and_go(served, page)
        await until(lambda: num_descriptors() <= num_before)
        await until(lambda: asyncio.all_tasks() <= tasks_before)


async def mute_and_lose(page: Page, microphone: Microphone) -> None:
    """Be silent while muted, and go on after a microphone has gone; the call is left open."""
    await connect(page, "webrtc")
    await page.click("#mute")
    assert not (await ask(page, microphone, "two_plus_two")).user
    await page.click("#mute")
    assert "what did i hear" in await speak(page, microphone)

    await page.run(
        "(() => { const { microphone } = parley; microphone.stop();"
        " microphone.dispatchEvent(new Event('ended')); })()"
    )
    assert "Plug it in" in await page.until("document.querySelector('.problem')?.textContent")
    await write(page, "hello")
    await page.until(f"{SAID}.includes('hello there') && !spy.isSpeaking")
    assert "what did i hear" in await speak(page, microphone)
    await page.click("#connect")
    await page.until("parley.status === 'closed'")


async def come_and_go(served: Served, page: Page) -> None:
    """Hang up, and reload in the middle of a call, on both transports."""
    pool, calls = served.pool, served.app.state.calls
    for transport in ("webrtc", "websocket"):
        await connect(page, transport)
        assert pool.num_sessions == 1
        assert calls.num_calls == (transport == "webrtc")
        await page.click("#connect")
        await page.until("parley.status === 'closed'")
        await until(lambda: pool.num_sessions == 0)
        await connect(page, transport)
        await page.open(f"http://127.0.0.1:{served.port}/")
        await until(lambda: pool.num_sessions == 0 and calls.num_calls == 0)
        await watch(page)


def num_descriptors() -> int:
    """Count the files and sockets that this process has open."""
    return len([*Path("/proc/self/fd").iterdir()])


async def test_tools(tmp_path: Path) -> None:
    """Answered by hand, or with what was made up, at once or after a yes or a no."""
    async with scripted() as served, visiting(served, tmp_path / "b") as (page, _):
        await page.click("#tab-tools")
        await page.click("#tools-example")
        await connect(page, "websocket")
        await write(page, "how is the weather")
        call = await page.until(
            "document.querySelector('.card form') && document.querySelector('.card').textContent"
        )
        assert "get_weather" in call
        assert '"city": "paris"' in call
        await page.fill(".card textarea", "sun")
        await page.click(".card form button")
        await page.until(f"{SAID}.includes('there will be sun')")
        await page.until("!parley.isReplying")

        await page.fill("#mocks select", "mock")
        await page.fill("#mocks textarea", "rain")
        await write(page, "how is the weather")
        await page.until(f"{SAID}.includes('there will be rain')")

        await page.fill("#mocks select", "ask")
        for button, said in (("[value=deny]", "so not approved"), (".primary", "will be rain")):
            await page.until("!parley.isReplying")
            await write(page, "how is the weather")
            await page.until("document.querySelector('.card form button')")
            await page.click(f".card form button{button}")
            await page.until(f"{SAID}.at(-1).includes('{said}')")


async def test_a_server_wants_a_yes(tmp_path: Path) -> None:
    """A card shows what is to be called, with which arguments, and has two buttons."""
    async with serving_mcp(weather_server().streamable_http_app()) as url:
        others = {
            "mcp": {"servers": {"maps": {"url": f"{url}/mcp"}}},
            "approvals": {"rules": [{"annotation": "destructive"}]},
        }
        async with scripted(others=others) as served, visiting(served, tmp_path / "b") as (page, _):
            await page.click("#tab-tools")
            tool = {"type": "mcp", "server_label": "maps", "require_approval": "never"}
            await page.fill("#tools", json.dumps([tool]))
            await connect(page, "websocket")
            await page.until(
                "document.querySelector('.mcp_list_tools')?.textContent.includes('delete')"
            )
            for number, (button, answer, said) in enumerate(
                [("primary", "Allowed.", "so paris is gone"), ("", "Denied.", "so not approved")], 1
            ):
                await write(page, "delete paris")
                cards = "document.querySelectorAll('.mcp_approval_request')"
                await page.until(f"{cards}.length === {number} && !parley.isReplying")
                card = await page.run(f"{cards}[{number - 1}].textContent")
                assert "maps.delete_city" in card
                assert '"city": "paris"' in card
                pressed = ".primary" if button else ":not(.primary)"
                await page.click(f".mcp_approval_request .bar button{pressed}")
                await page.until(f"{cards}[{number - 1}].textContent.includes('{answer}')")
                if button:
                    await page.until("document.querySelector('.mcp_call .output')")
                await page.until(f"{SAID}.at(-1)?.includes('{said}') && !parley.isReplying")


async def test_files_and_a_camera(tmp_path: Path) -> None:
    """A file is spoken in place of a microphone; a camera is shown, offered, and let go."""
    async with scripted() as served, visiting(served, tmp_path / "b") as (page, _):
        await page.click("[name=source][value=files]")
        await page.until("document.querySelector('[name=camera]').options.length > 1")
        camera = await page.run("document.querySelector('[name=camera]').options[1].value")
        await page.fill("[name=camera]", camera)
        await connect(page, "webrtc")
        await page.until("document.querySelector('#preview').videoWidth > 0")
        # What becomes of the pictures is the server's to say, and the page says it.
        can_see, told = await page.run(
            "[parley.wire.canSee, document.querySelector('#problems').textContent]"
        )
        assert can_see or "camera" in told

        await page.choose("#sound-file", ROOT / "tests" / "assets" / "two_plus_two.wav")
        await page.until(f"{SAID}.some((words) => words.includes('what did i hear'))")

        await page.run("window.tracks = [parley.camera, parley.microphone]")
        await page.click("#connect")
        await page.until("tracks.every((track) => track.readyState === 'ended')")
        assert await page.run("document.querySelector('#preview').hidden")


async def test_pictures_of_any_size(tmp_path: Path) -> None:
    """They are made small enough for a call; what is not is told, and the call goes on."""
    file = tmp_path / "noise.png"
    noise = np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, compress_level=1)
    async with scripted() as served, visiting(served, tmp_path / "b") as (page, _):
        await page.click("[name=source][value=none]")
        await connect(page, "webrtc")
        await page.run("parley.send({ type: 'session.update', padding: 'x'.repeat(300_000) })")
        assert "256 KiB" in await page.until("document.querySelector('.problem')?.textContent")
        await page.fill("#text", "what did i hear")
        await page.choose("#picture-file", file)
        await page.until(f"{SAID}.some((words) => words.includes(' and see grey '))")
        assert await page.run("document.querySelectorAll('.problem').length") == 1
        await page.choose("#picture-file", Path(__file__))
        await page.until("document.querySelector('#problems').textContent.includes('PNG')")


async def test_a_camera_by_websocket(tmp_path: Path) -> None:
    """Nobody would see it, and the page says what to do."""
    async with scripted() as served, visiting(served, tmp_path / "b") as (page, _):
        await page.until("document.querySelector('[name=camera]').options.length > 1")
        camera = await page.run("document.querySelector('[name=camera]').options[1].value")
        await page.fill("[name=camera]", camera)
        await connect(page, "websocket")
        problem = "document.querySelector('.problem')?.textContent"
        assert "choose WebRTC" in await page.until(problem)


async def test_a_camera_that_is_switched_on_later(tmp_path: Path) -> None:
    """It is offered in the middle of the call, and the next spoken turn has its pictures."""
    async with scripted() as served, visiting(served, tmp_path / "b") as (page, microphone):
        await page.until("document.querySelector('[name=camera]').options.length > 1")
        camera = await page.run("document.querySelector('[name=camera]').options[1].value")
        await connect(page, "webrtc")
        await page.fill("[name=camera]", camera)
        await page.until("parley.wire.canSee")
        images = served.app.state.gateway.models.default.gallery.images
        await until(lambda: images.counts.image_frames > 0)
        # What the browser shows for a camera is green, as large as it likes.
        assert " and see green " in await speak(page, microphone)
        assert await page.run("document.querySelector('#problems').textContent") == ""


async def test_errors_say_what_to_do(tmp_path: Path) -> None:
    """No key, a wrong key, no microphone."""
    problem = "document.querySelector('.problem')?.textContent"
    async with (
        scripted(api_keys=(KEY,)) as served,
        visiting(served, tmp_path / "b") as (page, _),
    ):
        assert "server.api_keys" in await page.until(problem)
        for transport in ("webrtc", "websocket"):
            await page.click(f"[name=transport][value={transport}]")
            await page.click("#connect")
            assert "server.api_keys" in await page.until(f"parley.status === 'closed' && {problem}")
        await page.fill("[name=key]", KEY)
        await page.until("[...document.querySelector('[name=voice]').options].length > 5")
        for name, advice in (
            ("NotAllowedError", "Allow the microphone"),
            ("NotFoundError", "Plug"),
        ):
            await page.run(
                "navigator.mediaDevices.getUserMedia = async () =>"
                f" {{ throw new DOMException('no', '{name}'); }}"
            )
            await page.click("#connect")
            await page.until(
                f"document.querySelector('#problems').textContent.includes('{advice}')"
            )
            assert await page.run("parley.status") == "closed"
        assert served.pool.num_sessions == 0
        await page.click("[name=source][value=none]")
        await connect(page, "webrtc")


async def test_anybody_can_use_it(tmp_path: Path) -> None:
    """Every control has a name, nothing is wider than a phone, log and code are there."""
    async with scripted() as served, visiting(served, tmp_path / "b") as (page, _):
        await page.click("[name=source][value=none]")
        await connect(page, "webrtc")
        await write(page, "hello")
        await page.until(
            "document.querySelector('#announced').textContent === 'Parley: hello there'"
        )
        tree = await page.send("Accessibility.getFullAXTree")
        roles = {"button", "textbox", "combobox", "slider", "radio", "searchbox", "tab", "meter"}
        controls = [
            node for node in tree["nodes"] if not node["ignored"] and node["role"]["value"] in roles
        ]
        assert len(controls) > 15
        assert all(node["name"]["value"] for node in controls)

        await page.click("#tab-events")
        names = "[...document.querySelectorAll('#events summary')].map((each) => each.textContent)"
        await page.until(f"{names}.some((name) => name.includes('session.created'))")
        await page.fill("#event-search", "session.")
        assert all("session." in name for name in await page.run(names))
        await page.click("#tab-code")
        assert "new Parley" in await page.run("document.querySelector('#code').textContent")
        await page.click("[name=language][value=python]")
        code = await page.run("document.querySelector('#code').textContent")
        compile(code, "copied", "exec")

        await page.send(
            "Emulation.setDeviceMetricsOverride",
            width=360, height=740, deviceScaleFactor=2, mobile=True,
        )  # fmt: skip
        for view in ("talk", "settings", "inspect"):
            await page.click(f"#views [data-view={view}]")
            assert await page.run("document.documentElement.scrollWidth <= innerWidth")
            assert await page.run(f"document.querySelector('#{view}').offsetWidth > 300")
        # Its own policy was broken by nothing.
        assert not [line for line in page.log if "Content Security Policy" in line]
