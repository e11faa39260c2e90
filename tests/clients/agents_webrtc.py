"""Talk through the `@openai/agents-realtime` package over WebRTC: a page in Chromium does it.

It lies with the programs for Node, `node/agents/agents_webrtc.html`; its reports are passed on.
"""

import asyncio
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.chromium import CHROMIUM, browsing
from tests.clients.run import ENVIRONMENTS
from tests.clients.run import HERE as CLIENTS
from tests.server.web.talking import hosting


async def main(host: str, config: str) -> None:
    """Hold all scenarios."""
    assert CHROMIUM is not None, "needs Chromium: apt-get install chromium"
    with (
        hosting(ENVIRONMENTS / "node-agents", CLIENTS.parent) as site,
        tempfile.TemporaryDirectory(prefix="parley-chromium-") as profile,
    ):
        url = f"{site}/agents_webrtc.html?given={host}&given={config}"
        async with browsing(url, Path(profile)) as page:
            await page.until("window.converse")
            await page.run("converse()", as_click=True)
            for entry in page.log:
                for argument in json.loads(entry).get("args", ()):
                    stream = sys.stdout if _is_report(argument) else sys.stderr
                    stream.write(f"{argument.get('value') or argument.get('description')}\n")


def _is_report(argument: dict[str, object]) -> bool:
    return str(argument.get("value")).startswith('{"scenario"')


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
