"""Calls with a camera, with stock aiortc as the client, against the scripted engine."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from model.messages import EngineInfo
from model.scripted.engine import ScriptedCore
from model.scripted.sight import look
from tests.server.images.files import BLUE, GREEN, RED
from tests.server.webrtc.caller import Caller, FilmCamera, calling, question
from tests.server.webrtc.serving import taking_calls

SCRIPT = """
hear: [{ text: what do you see, repeat: true }]
pace: { first_output_ms: 20, words_per_minute: 600, real_time_factor: 0.1 }
reply:
  - when: { image: '.' }
    say: i see something {image.colour}, {images}
  - say: i see nothing
"""


async def seen(caller: Caller, colour: str) -> None:
    """Wait until all pictures that wait for the user's turn have a colour."""
    session = await caller._served.app.state.calls.session(caller.call_id)
    sight = session._machine._state.sight
    async with asyncio.timeout(30):
        while {look(each.pixels).colour for each in sight.pictures} != {colour}:  # noqa: ASYNC110 - they come in real time
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("codec", ["video/VP8", "video/H264"])
async def test_what_the_camera_shows(codec: str, no_tasks_left: None) -> None:
    """A spoken turn has the newest pictures, and the engine answers what it sees in them."""
    del no_tasks_left
    camera = FilmCamera(RED)
    async with (
        taking_calls(SCRIPT, camera_images=2, camera_fps=4) as served,
        calling(served, camera=camera, codec=codec) as caller,
    ):
        await caller.until("session.created")
        for colour, name in ((RED, "red"), (GREEN, "green"), (BLUE, "blue")):
            camera.colour = colour
            await seen(caller, name)
            caller.microphone.say(question("two_plus_two"))
            added = await caller.until("conversation.item.added")
            kinds = [part["type"] for part in added["item"]["content"]]
            assert kinds in (["input_audio", *["input_image"] * num] for num in (1, 2))
            said = await caller.until("response.output_audio_transcript.done")
            assert said["transcript"].startswith(f"i see something {name}, ")
            assert said["transcript"].endswith(f"{name} 640x480")
            done = await caller.until("response.done")
            details = done["response"]["usage"]["input_token_details"]
            assert details["image_tokens"] % (20 * 15) == 0
            await caller.until("output_audio_buffer.stopped")
        caller.send(type="conversation.item.retrieve", item_id=added["item"]["id"])
        item = (await caller.until("conversation.item.retrieved"))["item"]
        assert item["content"][1]["image_url"].startswith("data:image/jpeg;base64,")


async def test_a_camera_that_is_switched_off_and_on() -> None:
    """Pictures of one turn are not those of the next; after a pause there are new ones."""
    camera = FilmCamera(RED)
    async with (
        taking_calls(SCRIPT, camera_fps=4) as served,
        calling(served, camera=camera) as caller,
    ):
        await caller.until("session.created")
        await seen(caller, "red")
        camera.is_on.clear()
        caller.microphone.say(question("two_plus_two"))
        await caller.until("output_audio_buffer.stopped")
        caller.microphone.say(question("two_plus_two"))
        said = await caller.until("response.output_audio_transcript.done")
        assert said["transcript"] == "i see nothing"
        await caller.until("output_audio_buffer.stopped")
        camera.colour = BLUE
        camera.is_on.set()
        await seen(caller, "blue")
        caller.microphone.say(question("two_plus_two"))
        said = await caller.until("response.output_audio_transcript.done")
        assert said["transcript"].startswith("i see something blue")


async def test_a_camera_that_comes_later(no_tasks_left: None) -> None:
    """It is offered in the middle of the call, which goes on with all that was said."""
    del no_tasks_left
    async with taking_calls(SCRIPT, camera_fps=4) as served, calling(served) as caller:
        await caller.until("session.created")
        caller.microphone.say(question("two_plus_two"))
        said = await caller.until("response.output_audio_transcript.done")
        assert said["transcript"] == "i see nothing"
        await caller.until("output_audio_buffer.stopped")
        before = caller.answer
        await caller.show(FilmCamera(GREEN))
        # Our side of ICE did not begin anew, and the sections are where they were.
        for name in ("a=ice-ufrag:", "a=mid:", "m=audio", "m=application"):
            first, second = (
                [line for line in answer.splitlines() if line.startswith(name)]
                for answer in (before, caller.answer)
            )
            assert first == second[: len(first)]
        await seen(caller, "green")
        caller.microphone.say(question("two_plus_two"))
        said = await caller.until("response.output_audio_transcript.done")
        assert said["transcript"].startswith("i see something green")


async def test_a_model_that_cannot_see(monkeypatch: pytest.MonkeyPatch) -> None:
    """The camera is refused in the answer, and the call goes on with sound."""
    told: Any = vars(ScriptedCore)["info"].fget

    def blind(core: ScriptedCore) -> EngineInfo:
        return replace(told(core), image_side=0)

    monkeypatch.setattr(ScriptedCore, "info", property(blind))
    camera = FilmCamera(RED)
    async with taking_calls(SCRIPT) as served, calling(served, camera=camera) as caller:
        await caller.until("session.created")
        assert "m=video 0 " in caller.answer
        caller.microphone.say(question("two_plus_two"))
        added = await caller.until("conversation.item.added")
        assert [part["type"] for part in added["item"]["content"]] == ["input_audio"]
        said = await caller.until("response.output_audio_transcript.done")
        assert said["transcript"] == "i see nothing"
        content = [{"type": "input_image", "image_url": "data:image/png;base64,AA"}]
        item = {"type": "message", "role": "user", "content": content}
        caller.send(type="conversation.item.create", item=item, event_id="mine")
        refused = (await caller.until("error"))["error"]
        assert (refused["code"], refused["event_id"]) == ("unsupported_parameter", "mine")
        assert "cannot see" in refused["message"]
    gallery = served.app.state.gateway.models.default.gallery
    assert gallery.images.counts.image_processes == 0


async def test_no_camera_by_settings() -> None:
    """With no pictures a second, video is refused."""
    async with (
        taking_calls(SCRIPT, camera_fps=0) as served,
        calling(served, camera=FilmCamera(RED)) as caller,
    ):
        await caller.until("session.created")
        assert "m=video 0 " in caller.answer


async def test_nothing_is_left(no_tasks_left: None) -> None:
    """After calls with cameras, no slot, task or descriptor is taken; the reader is shared."""
    del no_tasks_left
    from tests.server.webrtc.test_call import num_descriptors  # noqa: PLC0415 - of a test

    async with taking_calls(SCRIPT, camera_fps=4) as served:
        calls, pool = served.app.state.calls, served.pool
        images = served.app.state.gateway.models.default.gallery.images
        descriptors = None
        for way in ("client", "server", "client"):
            async with calling(served, camera=FilmCamera(GREEN)) as caller:
                await caller.until("session.created")
                await seen(caller, "green")
                if way == "server":
                    assert await caller.hang_up() == 200
                    async with asyncio.timeout(10):
                        await caller.is_closed.wait()
            async with asyncio.timeout(10):
                await calls.until_none()
            assert pool.num_sessions == 0
            count = num_descriptors()
            descriptors = descriptors or count
            assert count <= descriptors
        # A picture of a call that has ended may still be read, and is nobody's.
        await asyncio.gather(*images._tasks, return_exceptions=True)
        assert images.counts.image_processes == 1
