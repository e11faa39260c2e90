"""Calls over WebRTC while their server drains."""

import asyncio

import httpx
import pytest
from aiortc import RTCSessionDescription

from tests.server.webrtc.caller import Caller, calling
from tests.server.webrtc.offers import offer
from tests.server.webrtc.serving import taking_calls


async def test_a_call_goes_on_while_its_server_drains() -> None:
    """Its client is told on the data channel, and talks on; new offers are refused."""
    async with taking_calls() as served, calling(served) as caller:
        created = await caller.until("session.created")
        served.app.state.gateway.drain.begin()
        told = await caller.until("session.updated")
        assert told["session"]["expires_at"] < created["session"]["expires_at"]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.port}") as client:
            for path in ("/v1/realtime/calls", "/v1/realtime"):
                refused = await client.post(
                    path, content=offer(), headers={"content-type": "application/sdp"}
                )
                assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
                assert refused.json()["error"]["code"] == "draining"
            assert (await client.get("/readyz")).json()["status"] == "draining"
        content = [{"type": "input_text", "text": "hello"}]
        caller.send(
            type="conversation.item.create",
            item={"type": "message", "role": "user", "content": content},
        )
        caller.send(type="response.create")
        assert (await caller.until("response.done"))["response"]["status"] == "completed"
        await caller.until("output_audio_buffer.stopped")


async def test_a_call_whose_client_connects_when_the_drain_has_begun_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its offer was answered before: it is let in, and knows from the start when it will end."""
    async with taking_calls() as served:
        caller = Caller(served)
        gateway, answered = served.app.state.gateway, caller.pc.setRemoteDescription

        async def connect(answer: RTCSessionDescription) -> None:
            gateway.drain.begin()
            await answered(answer)

        monkeypatch.setattr(caller.pc, "setRemoteDescription", connect)
        try:
            await caller.call()
            created, told = (
                await caller.until("session.created"),
                await caller.until("session.updated"),
            )
            assert told["session"]["expires_at"] == gateway.drain.ends_at
            assert created["session"]["id"] == told["session"]["id"]
        finally:
            await caller.pc.close()
            await asyncio.gather(*caller.tasks)
