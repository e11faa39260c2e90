"""Nothing that a client sends breaks its session."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.audio.silero import SileroModel
from tests.server import oracle
from tests.server.session.live import TIMEOUT_S, Live, living

_words = st.sampled_from(
    [
        *("type", "session", "audio", "input", "output", "format", "item", "content", "role"),
        *("text", "transcript", "turn_detection", "server_vad", "semantic_vad", "transcription"),
        *("response", "voice", "tools", "function", "name", "parameters", "speed", "user"),
        *("audio/pcm", "audio/pcmu", "message", "function_call_output", "call_id", "event_id"),
        *("input_audio", "output_audio", "input_text", "previous_item_id", "item_id", "id"),
        *("audio_end_ms", "content_index", "conversation", "none", "auto", "metadata", "realtime"),
        *("AAAA", "AA", "A", "/w==", "*"),
    ]
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | _words,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(_words | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
_types = st.sampled_from(
    [
        "session.update",
        "transcription_session.update",
        "input_audio_buffer.append",
        "input_audio_buffer.commit",
        "input_audio_buffer.clear",
        "output_audio_buffer.clear",
        "conversation.item.create",
        "conversation.item.retrieve",
        "conversation.item.truncate",
        "conversation.item.delete",
        "response.create",
        "response.cancel",
    ]
)


def _event(kind: str, fields: dict[str, Any]) -> str:
    return json.dumps({**fields, "type": kind})


_events = st.builds(_event, _types, st.dictionaries(_words, _json, max_size=4))
_audio = st.binary(max_size=400).map(
    lambda data: _event("input_audio_buffer.append", {"audio": data.hex()})
)
_frames = st.one_of(
    st.text(max_size=40),
    st.binary(max_size=40).map(lambda data: data.decode("latin-1")),
    st.integers(1, 100_000).map(lambda depth: "[" * depth),
    st.integers(1, 5_000).map(lambda depth: '{"type":' * depth + "1" + "}" * depth),
    _json.map(json.dumps),
    _events,
    _audio,
)


@pytest.fixture(scope="module")
def vad_model() -> SileroModel:
    """Load the voice detector once."""
    return SileroModel()


@settings(max_examples=60, deadline=None)
@given(frames=st.lists(_frames, max_size=12))
def test_any_frame_is_answered_or_taken(vad_model: SileroModel, frames: list[str]) -> None:
    """After whatever frames, the session still does what it is asked, and has only blamed them."""
    asyncio.run(_still_lives_after(vad_model, frames))


async def _still_lives_after(vad_model: SileroModel, frames: list[str]) -> None:
    async with living(vad_model) as live:
        for frame in frames:
            live.transport.incoming.put_nowait(frame)
        live.send(type="conversation.item.retrieve", event_id="last", item_id="nothing")
        async with asyncio.timeout(TIMEOUT_S):
            while not await _is_last(live):
                pass
        live.transport.disconnect()


async def _is_last(live: Live) -> bool:
    """Take an event, and say whether it answers the last frame."""
    event = json.loads(await live.transport.sent.get())
    oracle.check(event)
    if event["type"] != "error":
        return False
    assert event["error"]["type"] == "invalid_request_error", event
    return bool(event["error"]["event_id"] == "last")
