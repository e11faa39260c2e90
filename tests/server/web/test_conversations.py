"""Three spoken turns in a browser, with the starter: what the page plays is what was said."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.chromium import CHROMIUM, PATIENCE_S, Microphone, Page, browsing
from model.training.speech.recogniser import Recogniser
from server.client.local import local_server
from server.names import ROOT
from tests.server.web.scripted import scripted, speak
from tests.server.web.talking import HERE, TRIES, ask, at_16_khz, hosting, watch

BUNDLE = ROOT / ".venv-clients/node-agents/node_modules/@openai/agents-realtime/dist/bundle"
# The questions of tests/assets, what is understood, and what is answered; who says a name again is
# told something else.
TURNS = (
    (
        "my_name_is_peter",
        "my name is peter",
        ("nice to meet you peter", "okay i will call you peter"),
    ),
    ("capital_of_france", "what is the capital of france", ("the capital of france is paris",)),
    ("what_is_my_name", "what is my name", ("your name is peter",)),
)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Serve the starter."""
    with local_server(ROOT / "configs" / "starter.yaml", ["webrtc.dtx=false"]) as url:
        yield url.replace("ws://", "http://")


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    """Listen independently of the starter."""
    pytest.importorskip("pocketsphinx", reason="needs the extra 'train'")
    return Recogniser([each for _, user, replies in TURNS for each in (user, *replies)])


async def converse(page: Page, microphone: Microphone, recogniser: Recogniser) -> None:
    """Hold the three turns; each is said again until it was understood, a few times."""
    for name, user, replies in TURNS:
        tried = []
        for _ in range(TRIES):
            turn = await ask(page, microphone, name)
            heard = recogniser.recognise(at_16_khz(turn.heard))
            tried.append((turn.user, turn.reply, heard))
            # Most words of what was played: a machine that stutters swallows some.
            words = set(turn.reply.split())
            num_heard = len(words & set(heard.split()))
            if turn.user == user and turn.reply in replies and num_heard >= 0.6 * len(words):
                break
        else:
            pytest.fail(f"{user}: {tried}")


@pytest.mark.parametrize("transport", ["webrtc", "websocket"])
async def test_the_page(
    transport: str, server: str, recogniser: Recogniser, tmp_path: Path
) -> None:
    """By its own buttons."""
    microphone = Microphone(tmp_path / "microphone.wav")
    async with browsing(server + "/", tmp_path / "profile", microphone.path) as page:
        await watch(page)
        await page.click(f"[name=transport][value={transport}]")
        await page.click("#connect")
        await page.until("parley.status === 'connected'")
        await converse(page, microphone, recogniser)
        said = await page.run("[...document.querySelectorAll('.said p')].map((p) => p.textContent)")
        assert all(set(replies) & set(said) for _, _, replies in TURNS)
        # How long each turn took, and for what.
        num_turns = await page.run("document.querySelectorAll('#latency > li').length")
        assert num_turns >= len(TURNS)
        assert not await page.run("document.querySelectorAll('.problem').length")


async def test_the_agents_package(server: str, recogniser: Recogniser, tmp_path: Path) -> None:
    """`@openai/agents-realtime`, as it is published."""
    if not BUNDLE.is_dir():
        pytest.skip("needs @openai/agents-realtime: make test-browser installs it")
    microphone = Microphone(tmp_path / "microphone.wav")
    with hosting(HERE, BUNDLE.parent) as site:
        url = f"{site}/agents.html"
        async with browsing(url, tmp_path / "profile", microphone.path) as page:
            await page.until("window.isReady")
            assert await page.run(f"begin('{server}')", as_click=True) == 200
            await converse(page, microphone, recogniser)
            roles = await page.run("session.history.map((item) => item.role)")
            assert roles[:2] == ["user", "assistant"]
            words = "session.history.flatMap((item) => item.content.map((part) => part.transcript))"
            said = set(await page.run(words))
            assert all(set(replies) & said for _, _, replies in TURNS)


async def test_talking_over_the_agents_package(tmp_path: Path) -> None:
    """The reply stops, and the package's history has the words that were heard."""
    if not BUNDLE.is_dir():
        pytest.skip("needs @openai/agents-realtime: make test-browser installs it")
    microphone = Microphone(tmp_path / "microphone.wav")
    with hosting(HERE, BUNDLE.parent) as site:
        url = f"{site}/agents.html"
        async with (
            scripted() as served,
            browsing(url, tmp_path / "profile", microphone.path) as page,
        ):
            await page.until("window.isReady")
            begin = f"begin('http://127.0.0.1:{served.port}')"
            assert await page.run(begin, as_click=True) == 200
            await page.run("session.sendMessage('please count')")
            await page.until("spy.numAudible() > 50")
            reply = await speak(page, microphone)
            words = await page.until(
                "session.history.map((item) => item.content?.[0]?.transcript)"
                ".find((words) => words?.startsWith('one two three') && !words.includes('sixteen'))"
            )
            assert f"user: please count; assistant: {words};" in reply
            assert await page.run("spy.events.some((e) => e.type.endsWith('truncated'))")
            await page.run("session.close()")
            await asyncio.wait_for(served.app.state.calls.until_none(), PATIENCE_S)
            assert served.pool.num_sessions == 0
