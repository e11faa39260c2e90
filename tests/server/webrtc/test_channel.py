"""What an event becomes that the client's data channel does not take."""

import json
from collections.abc import Callable
from typing import Any

from server.webrtc.channel import LABEL, ChannelTransport
from server.webrtc.offer import parse_offer
from tests.server.webrtc.offers import offer

LIMIT = 262_144


class Channel:
    """A data channel that remembers what was sent."""

    label = LABEL
    bufferedAmount = 0  # noqa: N815 - aiortc's name

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def on(self, name: str, heard: Callable[..., None]) -> None:
        """Take a listener."""

    def send(self, text: str) -> None:
        """Remember."""
        assert len(text) <= LIMIT
        self.sent.append(json.loads(text))


def retrieved(transcript: str, num_chars: int) -> str:
    """Return an item with its sound."""
    part = {"type": "output_audio", "transcript": transcript}
    sound = {"audio": "A" * num_chars, "format": "pcm16"}
    item = {"id": "item_1", "type": "message", "role": "assistant", "content": [part | sound]}
    event = {"type": "conversation.item.retrieved", "event_id": "event_1", "item": item}
    return json.dumps(event)


async def test_an_item_goes_without_its_sound() -> None:
    """A client may want to know which words were heard; sound that fits is there as ever."""
    channel, transport = Channel(), ChannelTransport(parse_offer(offer()).channel)
    transport.take(channel)  # type: ignore[arg-type]
    await transport.send(retrieved("one two", 1_000))
    await transport.send(retrieved("one two", LIMIT))
    await transport.send(retrieved("one two " * LIMIT, 1_000))
    small, without, error = channel.sent
    assert small["item"]["content"][0]["audio"] == "A" * 1_000
    assert without["item"]["content"] == [{"type": "output_audio", "transcript": "one two"}]
    assert error["error"]["code"] == "message_too_large"
    assert "conversation.item.retrieved" in error["error"]["message"]
