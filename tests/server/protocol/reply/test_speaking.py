"""A spoken message is counted as the client plays it, and as the engine made it."""

import base64
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from model.messages import EngineInfo
from server.protocol.items.conversation import Conversation
from server.protocol.items.items import AudioPart, Message, Word
from server.protocol.items.recordings import Recordings
from server.protocol.reply.output_items import OutputItems
from server.protocol.reply.speaking import Speaking
from server.protocol.server_events import OutputAudioDelta, ServerEvent
from server.protocol.settings.request import session_request
from server.protocol.sound import Sound
from tests.server.protocol.harness import CONFIG

RATE_HZ = 16_000
FRAME = np.zeros(RATE_HZ * 80 // 1000, dtype=np.float32)


def _speaking(speed: float) -> tuple[Speaking, Conversation]:
    conversation = Conversation(10)
    recordings = Recordings(1 << 20, RATE_HZ)
    request = replace(session_request(CONFIG), speed=speed)
    outputs = OutputItems("resp_1", conversation)
    info = EngineInfo("m", RATE_HZ, 80, (), 1)
    speaking = Speaking("resp_1", "a", request, outputs, recordings, info)
    speaking.opened()
    return speaking, conversation


def _num_samples(events: Sequence[ServerEvent | Sound]) -> int:
    deltas = [event.delta for event in events if isinstance(event, OutputAudioDelta)]
    return sum(len(base64.b64decode(delta)) for delta in deltas) // 2


def test_twice_as_fast_is_half_as_long() -> None:
    """Lengths are the client's; places of words and tokens are the engine's frames."""
    speaking, conversation = _speaking(2.0)
    speaking.text("one two")
    speaking.word("one", 0)
    speaking.word("two", 400)
    events = [event for _ in range(10) for event in speaking.audio(FRAME, 5.0)]
    events += speaking.closed("completed", is_cut=False)
    assert speaking.num_frames == 10
    assert speaking.audio_ms == 400
    assert _num_samples(events) == 400 * 24
    item = conversation["a"]
    assert isinstance(item, Message)
    words = (Word("one", 0), Word("two", 400))
    assert item.output_audio == AudioPart("output_audio", "one two", 400, words, speed=2.0)


def test_no_more_is_heard_than_time_has_passed() -> None:
    """A client plays in real time from the first audio on, and what it was sent."""
    speaking, _ = _speaking(1.0)
    assert speaking.heard_ms(100.0) == 0
    for _ in range(5):
        speaking.audio(FRAME, 10.0)
    assert speaking.heard_ms(10.25) == 250
    assert speaking.heard_ms(99.0) == 400
    assert speaking.heard_ms(9.0) == 0


def test_a_cut_message_sends_no_tail() -> None:
    """What the encoder holds back is of use only to who hears the rest."""
    speaking, _ = _speaking(1.0)
    speaking.audio(FRAME, 0.0)
    assert _num_samples(speaking.closed("incomplete", is_cut=True)) == 0
