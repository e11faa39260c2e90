"""Pictures over a WebSocket: what the engine sees, what clients are told, what is refused."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import websockets

from model.scripted.script import parse_script
from server.config.images import ImageSettings
from server.config.settings import Settings
from server.config.webrtc import WebRtcSettings
from tests.fakes.scripted import scripted_engine
from tests.server.images.files import BLUE, GREEN, RED, data_url, huge_png, image_file
from tests.server.images.test_reading import read
from tests.server.serving import serving

SCRIPT = """
hear: [what is this]
pace: { first_output_ms: 1, write_ms: 1, words_per_minute: 600, real_time_factor: 0 }
reply:
  - say: '{image.colour} {image.width} {image.height}, {history}'
"""


class Client:
    """One session."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self._socket = socket

    async def send(self, kind: str, **event: Any) -> None:
        """Send an event."""
        await self._socket.send(json.dumps({"type": kind, **event}))

    async def until(self, *kinds: str) -> dict[str, Any]:
        """Receive up to the first event of some kinds."""
        async with asyncio.timeout(30):
            while True:
                event: dict[str, Any] = json.loads(await self._socket.recv())
                if event["type"] in kinds:
                    return event

    async def show(self, *content: dict[str, Any], **event: Any) -> dict[str, Any]:
        """Add a user's item; returns what is answered."""
        item = {"type": "message", "role": "user", "content": content}
        await self.send("conversation.item.create", item=item, **event)
        return await self.until("conversation.item.added", "error")

    async def reply(self, **response: Any) -> tuple[str, dict[str, Any]]:
        """Ask for a written response; returns its words and its usage."""
        response = {"output_modalities": ["text"], **response}
        await self.send("response.create", response=response)
        done = (await self.until("response.done", "error")).get("response")
        assert done is not None, "it was refused"
        return done["output"][0]["content"][0]["text"], done["usage"]


def image(url: str, **fields: str) -> dict[str, str]:
    """Return a part."""
    return {"type": "input_image", "image_url": url, **fields}


def text(words: str) -> dict[str, str]:
    """Return a part."""
    return {"type": "input_text", "text": words}


@asynccontextmanager
async def talking(**images: Any) -> AsyncIterator[Client]:
    """Talk to a scripted engine."""
    engine = scripted_engine(parse_script(SCRIPT, "test"), max_sessions=3, ahead_ms=1_000)
    settings = Settings(images=ImageSettings(**images), webrtc=WebRtcSettings(enabled=False))
    async with (
        serving(engine, settings) as served,
        websockets.connect(
            f"{served.url}/v1/realtime?model=m", max_size=1 << 20, ping_interval=None
        ) as socket,
    ):
        client = Client(socket)
        await client.until("session.created")
        yield client


async def test_words_and_pictures_in_order() -> None:
    """The engine sees what was sent, where it was sent; usage counts it."""
    async with talking() as client:
        red = data_url(image_file(RED, (64, 48)))
        blue = data_url(image_file(BLUE, (640, 480), "JPEG"), "jpeg")
        added = await client.show(text("is this"), image(red), text("like this"), image(blue))
        assert [part["type"] for part in added["item"]["content"]] == [
            "input_text",
            "input_image",
            "input_text",
            "input_image",
        ]
        assert added["item"]["content"][1] == {"type": "input_image", "detail": "auto"}
        words, usage = await client.reply()
        seen = "user: is this [red 64x48] like this [blue 640x480]"
        assert words == f"blue 640 480, {seen}"
        details = usage["input_token_details"]
        assert details["image_tokens"] == 2 * 2 + 20 * 15
        assert details["cached_tokens_details"]["image_tokens"] == 0
        _, usage = await client.reply()
        details = usage["input_token_details"]
        assert details["cached_tokens_details"]["image_tokens"] == details["image_tokens"] == 304
        assert usage["input_tokens"] == sum(
            details[f"{kind}_tokens"] for kind in ("text", "audio", "image")
        )


async def test_detail_and_kinds() -> None:
    """Each kind of file is read; `low` is a smaller picture."""
    async with talking(max_side={"low": 100, "auto": 200, "high": 400}) as client:
        for kind, detail, side in (
            ("PNG", "low", 100),
            ("JPEG", "auto", 200),
            ("WEBP", "high", 400),
        ):
            url = data_url(image_file(GREEN, (800, 800), kind), kind.lower())
            added = await client.show(image(url, detail=detail))
            assert added["item"]["content"] == [{"type": "input_image", "detail": detail}]
            words, _ = await client.reply()
            assert words.startswith(f"green {side} {side}, ")


async def test_a_picture_can_be_asked_for() -> None:
    """A retrieve shows it as the model is given it."""
    async with talking() as client:
        url = data_url(image_file(RED, (1_600, 800)))
        item_id = (await client.show(text("look"), image(url)))["item"]["id"]
        await client.send("conversation.item.retrieve", item_id=item_id)
        item = (await client.until("conversation.item.retrieved"))["item"]
        head, _, file = item["content"][1]["image_url"].partition(",")
        assert head == "data:image/jpeg;base64"
        assert read(base64.b64decode(file), side=999).shape == (384, 768, 3)


async def test_pictures_of_one_response() -> None:
    """A response with an input of its own sees the pictures of that."""
    async with talking() as client:
        await client.show(image(data_url(image_file(RED))))
        content = [text("and this"), image(data_url(image_file(BLUE)))]
        given = [{"type": "message", "role": "user", "content": content}]
        words, usage = await client.reply(conversation="none", input=given)
        assert words == "blue 64 48, user: and this [blue 64x48]"
        assert usage["input_token_details"]["image_tokens"] == 4
        words, _ = await client.reply(conversation="none")
        assert words == "red 64 48, user: [red 64x48]"


async def test_a_conversation_that_is_told_anew() -> None:
    """What is remembered of pictures survives an edit; what was forgotten is not told again."""
    side = {"low": 64, "auto": 64, "high": 64}
    async with talking(max_side=side, max_kept_bytes=3 * 64 * 48 * 3) as client:
        first = (await client.show(text("first"), image(data_url(image_file(RED)))))["item"]["id"]
        await client.show(text("second"), image(data_url(image_file(GREEN))))
        last = (await client.show(text("third"), image(data_url(image_file(BLUE)))))["item"]["id"]
        words, _ = await client.reply(conversation="none")
        assert words.endswith("user: first; user: second [green 64x48]; user: third [blue 64x48]")
        await client.send("conversation.item.delete", item_id=last)
        await client.until("conversation.item.deleted")
        words, _ = await client.reply()
        assert words.endswith("user: first; user: second [green 64x48]")
        await client.send("conversation.item.retrieve", item_id=first)
        item = (await client.until("conversation.item.retrieved"))["item"]
        assert item["content"][1] == {"type": "input_image", "detail": "auto"}


@pytest.mark.parametrize(
    ("part", "code", "param", "message"),
    [
        ({"type": "input_image"}, "missing_required_parameter", ".image_url", "Missing"),
        (image("https://example.com/a.png"), "invalid_value", ".image_url", "Nothing is fetched"),
        (image("data:image/gif;base64,AAAA"), "invalid_value", ".image_url", "PNG, JPEG or WebP"),
        (image("data:image/png;base64,AAAA"), "invalid_value", ".image_url", "expected a PNG"),
        (image("data:image/png;base64,*"), "invalid_value", ".image_url", "not base64"),
        (image(data_url(image_file()[:99])), "invalid_value", ".image_url", "broken"),
        (image(data_url(huge_png(2_000, 600))), "invalid_value", ".image_url", "2000 × 600"),
        (image(data_url(), detail="sharp"), "invalid_value", ".detail", "'high'"),
        (image(7), "invalid_type", ".image_url", "a string"),  # type: ignore[arg-type]
    ],
)
async def test_refusals(part: dict[str, Any], code: str, param: str, message: str) -> None:
    """What cannot be shown is refused by name, and the session goes on as it was."""
    async with talking(max_pixels=1 << 20) as client:
        await client.show(text("hello"))
        refused = (await client.show(text("look"), part, event_id="mine"))["error"]
        assert (refused["code"], refused["event_id"]) == (code, "mine")
        assert refused["param"] == f"item.content[1]{param}"
        assert message in refused["message"]
        await client.send("response.create", event_id="then")
        unanswered = (await client.until("response.created", "error"))["error"]
        assert (unanswered["code"], unanswered["event_id"]) == (code, "then")
        words, _ = await client.reply()
        assert words.endswith("user: hello")


async def test_too_many_and_too_large() -> None:
    """Pictures of one item are bounded in number and in bytes."""
    async with talking(max_of_item=3, max_kept_bytes=40_000) as client:
        small, large = image(data_url()), image(data_url(image_file(size=(90, 90))))
        refused = (await client.show(*[small] * 4))["error"]
        assert (refused["code"], refused["param"]) == ("array_above_max_length", "item.content[3]")
        refused = (await client.show(large, large))["error"]
        assert refused["code"] == "invalid_value"
        assert "keeps at most 40000" in refused["message"]
        assert (await client.show(large, small))["type"] == "conversation.item.added"


async def test_long_strings_elsewhere() -> None:
    """Only where a picture stands may a string be as long as one."""
    long = "A" * 300_000
    async with talking() as client:
        for event in (
            {"item": {"type": "message", "role": "user", "image_url": long}},
            {"item": {"type": "message", "role": "user", "content": [{"x": {"image_url": long}}]}},
            {
                "session": {
                    "type": "realtime",
                    "prompt": {
                        "id": "p",
                        "variables": {"a": {"type": "input_image", "image_url": long}},
                    },
                }
            },
        ):
            kind = "session.update" if "session" in event else "conversation.item.create"
            await client.send(kind, **event)
            refused = (await client.until("error"))["error"]
            assert refused["code"] == "string_above_max_length"
