"""A server that follows a script and takes calls."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from model.scripted.script import parse_script
from server.config.settings import Settings
from server.config.webrtc import WebRtcSettings
from server.webrtc.network import Network
from tests.fakes.scripted import scripted_engine
from tests.server.serving import Served, serving

SCRIPT = """
hear: [hello, what is the capital of france, tell me a story]
pace: { first_output_ms: 20, words_per_minute: 300, real_time_factor: 0.1 }
reply:
  - when: { user: hello }
    say: hello there
  - when: { user: france }
    say: paris it is
  - say: once upon a time there was a very long story that went on and on and on without an end
"""


@asynccontextmanager
async def taking_calls(script: str = SCRIPT, **webrtc: Any) -> AsyncIterator[Served]:
    """Serve a script to callers."""
    engine = scripted_engine(parse_script(script, "test"), max_sessions=2, ahead_ms=1_000)
    settings = Settings(webrtc=WebRtcSettings(**({"port": 0} | webrtc)))
    network = Network(settings.webrtc, "127.0.0.1", 0)
    async with serving(engine, settings, network) as served:
        yield served
    assert len(network.exchange) == 0, "no call is remembered"
