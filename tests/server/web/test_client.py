"""The page of docs/client-js.md, on another site than the server, with an ephemeral key."""

import asyncio
import re
from pathlib import Path

import httpx
import pytest

from benchmarks.chromium import CHROMIUM, Microphone, browsing
from server.names import ROOT
from tests.server.web.scripted import KEY, scripted
from tests.server.web.talking import hosting

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]


async def test_the_documented_page(tmp_path: Path) -> None:
    """It calls, its function is called, and it hangs up."""
    text = (ROOT / "docs" / "client-js.md").read_text()
    (page_text,) = re.findall(r"```html\n(.*?)```", text, re.DOTALL)
    async with scripted(api_keys=(KEY,)) as served:
        address = f"http://127.0.0.1:{served.port}"
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {KEY}"}) as client:
            made = await client.post(f"{address}/v1/realtime/client_secrets", json={})
        site = tmp_path / "site"
        (site / "my-backend").mkdir(parents=True)
        (site / "my-backend" / "key").write_text(made.json()["value"])
        # The test writes instead of speaking, so it must get hold of the client.
        page_text = page_text.replace("http://127.0.0.1:8000", address)
        page_text = page_text.replace("const parley", "const parley = window.parley")
        (site / "page.html").write_text(page_text)
        microphone = Microphone(tmp_path / "microphone.wav")
        with hosting(site) as other:
            async with browsing(
                f"{other}/page.html", tmp_path / "profile", microphone.path
            ) as page:
                await page.until("window.parley")
                await page.click("button")
                await page.until("parley.status === 'connected'")
                await page.run("parley.type('how is the weather')")
                await page.until("document.querySelector('p').innerText.includes('weather')")
                call = await page.until("parley.items.find((item) => item.output !== null)")
                assert call["name"] == "get_weather"
                assert call["output"] == '{"city":"paris","degrees":21}'
                await page.until("document.querySelector('p').innerText.includes('hello there')")
                await page.click("button")
                await page.until("parley.status === 'closed'")
            await asyncio.wait_for(served.app.state.calls.until_none(), 60)
            assert served.pool.num_sessions == 0
