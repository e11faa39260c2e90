"""Calls over WebRTC, with stock aiortc as the client, against the scripted engine."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from model.scripted.engine import scripted_engine
from model.scripted.script import parse_script
from server.config import Settings, WebRtcSettings
from server.webrtc.network import Network
from tests.server.serving import Served, serving
from tests.server.webrtc.caller import calling, question

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
    settings = Settings(webrtc=WebRtcSettings(port=0, **webrtc))
    network = Network(settings.webrtc, "127.0.0.1", 0)
    async with serving(engine, settings, network) as served:
        yield served
    assert len(network.exchange) == 0, "no call is remembered"


async def test_three_turns() -> None:
    """The user speaks three times, and hears three replies."""
    async with taking_calls() as served, calling(served) as caller:
        assert (await caller.until("session.created"))["session"]["id"].startswith("sess_")
        for expected in ("hello there", "paris it is"):
            caller.microphone.say(question("two_plus_two"))
            said = await caller.until("response.output_audio_transcript.done")
            assert said["transcript"] == expected
            stopped = await caller.until("output_audio_buffer.stopped")
            assert stopped["response_id"] == said["response_id"]
    kinds = [event["type"] for event in caller.seen]
    assert "response.output_audio.delta" not in kinds
    assert kinds.count("output_audio_buffer.started") == 2
    assert np.abs(np.concatenate(caller.heard)).max() > 1_000
