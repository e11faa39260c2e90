"""A call over WebRTC, with stock aiortc as the client, with checks and with tools that ask."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from model.scripted.script import parse_script
from server.config.settings import Settings
from server.webrtc.network import Network
from tests.fakes.scripted import scripted_engine
from tests.server.mcp.serving import serving as serving_mcp
from tests.server.mcp.serving import weather_server
from tests.server.serving import serving
from tests.server.webrtc.caller import Caller, calling, question

SCRIPT = """
hear:
  - tell me how
  - delete the city
  - and what now
pace: { first_output_ms: 20, words_per_minute: 300, real_time_factor: 0.1 }
reply:
  - when: { user: tell me how }
    say: That is easy. First you take a bomb. And then some more of it.
  - when: { user: delete }
    say: I will delete it if you like and if you do not then I will not do it now.
    call: { name: delete_city, arguments: { city: oslo } }
  - when: { output: '(?P<words>.+)' }
    say: it said {words}
  - say: '{history}'
"""
SENTENCE = "I cannot talk about that."
FILTERS = {
    "checks": [{"kind": "words", "of": ["output", "calls"], "words": ["bomb"]}],
    "sentence": SENTENCE,
}


@asynccontextmanager
async def _called() -> AsyncIterator[Caller]:
    """Call a server with checks and an MCP server, whose tools are listed."""
    engine = scripted_engine(parse_script(SCRIPT, "test"), max_sessions=2, ahead_ms=1_000)
    async with serving_mcp(weather_server().streamable_http_app()) as url:
        settings = Settings.model_validate(
            {
                "webrtc": {"port": 0},
                "filters": FILTERS,
                "mcp": {"servers": {"maps": {"url": f"{url}/mcp"}}},
            }
        )
        network = Network(settings.webrtc, "127.0.0.1", 0)
        async with serving(engine, settings, network) as served, calling(served) as caller:
            await caller.until("session.created")
            tool = {"type": "mcp", "server_label": "maps"}
            caller.send(type="session.update", session={"type": "realtime", "tools": [tool]})
            await caller.until("mcp_list_tools.completed")
            yield caller


async def _item(caller: Caller, kind: str) -> Any:
    """Return the next final item of a kind."""
    while (event := await caller.until("conversation.item.done"))["item"]["type"] != kind:
        pass
    return event["item"]


async def test_words_tools_and_interruptions_in_a_call() -> None:
    """A refused sentence, the one in its place, a call that waits while somebody talks over it."""
    async with _called() as caller:
        caller.microphone.say(question("two_plus_two"))
        done = (await caller.until("response.done"))["response"]
        assert done["status_details"] == {"type": "incomplete", "reason": "content_filter"}
        (message,) = done["output"]
        assert message["content"][0]["transcript"] == "That is easy."
        said = await caller.until("response.output_audio_transcript.done")
        assert said["transcript"] == SENTENCE
        stopped = await caller.until("output_audio_buffer.stopped")
        while stopped["response_id"] != said["response_id"]:
            stopped = await caller.until("output_audio_buffer.stopped")
        assert np.abs(np.concatenate(caller.heard)).max() > 1_000

        caller.microphone.say(question("capital_of_france"))
        request = await _item(caller, "mcp_approval_request")
        assert request["name"] == "delete_city"
        await caller.until("response.done")
        # The reply was made long before it is heard: whoever talks over it does not answer it.
        caller.microphone.say(question("my_name_is_peter"))
        await caller.until("output_audio_buffer.cleared")
        truncated = await caller.until("conversation.item.truncated")
        assert truncated["audio_end_ms"] > 0
        history = (await caller.until("response.done"))["response"]["output"][0]["content"][0]
        assert "call: delete_city" in history["transcript"]
        assert "returned" not in history["transcript"]
        assert "bomb" not in history["transcript"]
        answer = {"type": "mcp_approval_response", "approval_request_id": request["id"]}
        caller.send(type="conversation.item.create", item={**answer, "approve": True})
        call = await _item(caller, "mcp_call")
        assert call["output"] == "oslo is gone, False"
        caller.send(type="response.create")
        said = await caller.until("response.output_audio_transcript.done")
        assert said["transcript"] == "it said oslo is gone, False"
        await caller.until("output_audio_buffer.started")
    assert "bomb" not in "".join(map(str, caller.seen))
    assert "error" not in [event["type"] for event in caller.seen]
    heard = [event["response_id"] for event in caller.seen if "buffer.started" in event["type"]]
    over = [
        event["response_id"]
        for event in caller.seen
        if event["type"] in ("output_audio_buffer.stopped", "output_audio_buffer.cleared")
    ]
    assert over == heard[: len(over)], "each that began to be heard has one end"
