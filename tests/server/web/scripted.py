"""A server for pages that follows a script, in the test's own process."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from benchmarks.chromium import Microphone, Page
from model.scripted.script import parse_script
from server.config.settings import Settings
from server.webrtc.network import Network
from tests.fakes.scripted import scripted_engine
from tests.server.serving import Served, serving
from tests.server.web.talking import TRIES, ask

SCRIPT = r"""
hear: [{ text: what did i hear, repeat: true }]
pace: { first_output_ms: 20, words_per_minute: 200, real_time_factor: 0.2 }
reply:
  - when: { output: "(?P<sky>rain|sun)", function: get_weather }
    say: there will be {sky}
  - when: { output: "(?P<what>.+ is gone|not approved)" }
    say: "so {what}"
  - when: { user: delete }
    call: { name: delete_city, arguments: { city: paris } }
  - when: { user: weather }
    call: { name: get_weather, arguments: { city: paris } }
  - when: { user: count }
    say: one two three four five LONG sixteen
  - when: { user: what did i hear, image: "." }
    say: "i remember {history} and see {images}"
  - when: { user: what did i hear }
    say: "i remember {history}"
  - say: hello there
""".replace("LONG", "and so on " * 30)  # half a minute: whoever is slow still talks over it
KEY = "sk-sixteen-or-more-1"


@asynccontextmanager
async def scripted(
    webrtc: dict[str, object] | None = None,
    others: Mapping[str, object] | None = None,
    **server: object,
) -> AsyncIterator[Served]:
    """Serve the script, to pages and callers.

    Args:
        webrtc: settings of calls.
        others: further sections of the settings.
        server: settings of the server.
    """
    # What asyncio does for debugging takes longer than sound can wait.
    asyncio.get_running_loop().set_debug(False)
    engine = scripted_engine(parse_script(SCRIPT, "test"), max_sessions=2, ahead_ms=1_000)
    sections = {"server": server, "webrtc": {"port": 0, **(webrtc or {})}, **(others or {})}
    settings = Settings.model_validate(sections)
    network = Network(settings.webrtc, "::" if webrtc else "127.0.0.1", 0)
    async with serving(engine, settings, network) as served:
        yield served
    assert len(network.exchange) == 0, "no call is remembered"


async def speak(page: Page, microphone: Microphone) -> str:
    """Say something until it was heard; returns the reply."""
    for _ in range(TRIES):
        if (turn := await ask(page, microphone, "two_plus_two")).user:
            return turn.reply
    pytest.fail("nothing was heard")
