"""A page whose connection breaks comes back to its session."""

from pathlib import Path

import pytest

from benchmarks.chromium import CHROMIUM
from tests.server.web.scripted import scripted
from tests.server.web.test_playground import SAID, connect, until, visiting, write

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]


async def test_a_page_comes_back(tmp_path: Path) -> None:
    """What it wrote meanwhile is answered; when it hangs up, nothing is waited for."""
    async with (
        scripted(others={"resume": {"grace_s": 600.0}}) as served,
        visiting(served, tmp_path / "b") as (page, _),
    ):
        gateway = served.app.state.gateway
        await connect(page, "websocket")
        await write(page, "hello")
        await page.until(f"{SAID}.includes('hello there')")
        await page.until("!parley.isReplying")
        session_id = await page.until("parley.inForce.id")
        _, session = gateway.comebacks._sessions[session_id]
        session._own.lose()  # the network stands still
        await until(lambda: gateway.counts.sessions_resumed == 1)
        await write(page, "what did i hear")
        await page.until(f"{SAID}.some((text) => text.startsWith('i remember'))")
        assert await page.until("parley.inForce.id") == session_id
        await page.click("#connect")
        await until(lambda: served.pool.num_sessions == 0)
