"""The engine's memory follows the conversation, and starts over only when it can."""

import numpy as np
import pytest

from model.messages import (
    AppendAudio,
    AppendCall,
    AppendCallOutput,
    AppendText,
    Cancel,
    ClearAudio,
    Close,
    Command,
    CommitAudio,
    EngineInfo,
    Open,
    Pcm,
    Respond,
    Truncate,
)
from server.protocol.items.conversation import Conversation
from server.protocol.items.items import (
    AudioPart,
    FunctionCall,
    FunctionCallOutput,
    Message,
    TextPart,
)
from server.protocol.items.recordings import Recordings
from server.protocol.items.sight import Sight
from server.protocol.memory.feed import TurnFeed
from server.protocol.memory.turn_check import TurnCheck
from server.protocol.settings.config import SessionConfig, VoiceMap
from server.protocol.state import SessionState
from tests.server.fakes import CountingIds

HELLO = Message("a", "user", "completed", (TextPart("input_text", "hello"),))


def _audio(item_id: str) -> Message:
    """Return an item that is audio whose words are not known."""
    return Message(item_id, "user", "completed", (AudioPart("input_audio", None),))


AGAIN = [Close, Open, AppendText]


class Memory:
    """Count how often the turn is heard again."""

    heard_again = 0

    def hears_again(self) -> None:
        """Count."""
        self.heard_again += 1


@pytest.fixture
def memory() -> Memory:
    """Give a memory."""
    return Memory()


@pytest.fixture
def recordings() -> Recordings:
    """Give room for sound."""
    return Recordings(1 << 20, 16_000)


@pytest.fixture
def feed(memory: Memory, recordings: Recordings) -> TurnFeed:
    """Give a feed that keeps a thousand samples."""
    conversation = Conversation(10)
    conversation.append(HELLO)
    config = SessionConfig(id="s", model="m", voice="alloy", expires_at=0)
    voices = VoiceMap({"alloy": "amber"}, "alloy")
    info = EngineInfo("m", 16_000, 80, (), 1)
    state = SessionState(config, info, voices, CountingIds(), conversation, recordings, Sight(3))
    return TurnFeed(state, 1_000, TurnCheck(), memory.hears_again)


def _pcm(num_samples: int) -> Pcm:
    return np.arange(num_samples, dtype=np.float32)


def _kinds(commands: list[Command]) -> list[type]:
    return [type(command) for command in commands]


def test_what_matches_is_passed_on(feed: TurnFeed) -> None:
    """A plain conversation is a plain sequence of commands."""
    assert _kinds(feed.audio(_pcm(10))) == [AppendAudio]
    assert _kinds(feed.commit("a")) == [CommitAudio]
    assert _kinds(feed.respond(Respond("s", 1, "b"))) == [Respond]
    assert feed.cancel(1) == [Cancel("s", 1)]
    assert feed.unsay("b", 80) == [Truncate("s", "b", 80)]
    assert feed.add(HELLO) == [AppendText("s", "a", "user", "hello")]
    assert feed.clear() == []


def test_starting_over_waits_for_the_next_need(feed: TurnFeed) -> None:
    """Many changes of the past cost one new beginning, with all of them in it."""
    feed.outdate()
    feed.outdate()
    assert feed.add(HELLO) == []
    assert _kinds(feed.respond(Respond("s", 1, "b"))) == [*AGAIN, Respond]


def test_an_open_turn_is_heard_again(feed: TurnFeed, memory: Memory) -> None:
    """What the user is saying survives a new beginning."""
    feed.audio(_pcm(10))
    feed.outdate()
    *before, audio = feed.audio(_pcm(5))
    assert _kinds(before) == AGAIN
    assert isinstance(audio, AppendAudio)
    assert len(audio.pcm) == 15
    assert memory.heard_again == 1
    assert _kinds(feed.audio(_pcm(5))) == [AppendAudio]


def test_it_does_not_start_over_under_a_response_or_a_transcript(feed: TurnFeed) -> None:
    """A reply in progress, and words not known yet, exist in the engine only."""
    feed.respond(Respond("s", 1, "b"))
    feed.outdate()
    assert _kinds(feed.audio(_pcm(10))) == [AppendAudio]
    feed.finish()
    assert _kinds(feed.commit("c")) == [*AGAIN, AppendAudio, CommitAudio]
    feed.outdate()
    assert _kinds(feed.respond(Respond("s", 2, "d"))) == [Respond]
    feed.finish()
    assert feed.transcribed("c")
    assert not feed.transcribed("c"), "it has come already"
    assert _kinds(feed.audio(_pcm(1))) == [*AGAIN, AppendAudio]


def test_what_the_engine_did_not_speak_cannot_be_truncated(feed: TurnFeed) -> None:
    """An item that was replayed as words has no frames to go back to."""
    feed.respond(Respond("s", 1, "b"))
    feed.finish()
    assert feed.unsay("b", 0) == [Truncate("s", "b", 0)]
    assert feed.unsay("other", 0) == []
    assert _kinds(feed.respond(Respond("s", 2, "c"))) == [*AGAIN, Respond]
    feed.finish()
    # The new beginning made words of it.
    assert feed.unsay("b", 0) == []


def test_going_back_would_take_later_calls_along(feed: TurnFeed) -> None:
    """A reply that went on with function calls is shortened by telling all anew."""
    feed.respond(Respond("s", 1, "b"))
    feed.called("b")
    feed.finish()
    assert feed.unsay("b", 80) == []
    assert _kinds(feed.respond(Respond("s", 2, "c"))) == [*AGAIN, Respond]


def test_function_items_are_told_as_they_come(feed: TurnFeed) -> None:
    """A call made earlier and what it returned are commands of their own."""
    call = FunctionCall("f", "completed", "call_1", "get_time", "{}")
    assert feed.add(call) == [AppendCall("s", "f", "get_time", "{}")]
    returned = FunctionCallOutput("o", "call_1", "get_time", "noon")
    assert feed.add(returned) == [AppendCallOutput("s", "o", "get_time", "noon")]
    feed.outdate()
    assert feed.add(call) == [], "the new beginning will tell it"


def test_the_sound_of_a_whole_turn_is_kept(feed: TurnFeed, recordings: Recordings) -> None:
    """Of a turn that was too long to be kept there is no sound, not its end alone."""
    feed.audio(_pcm(10) / np.float32(10))
    feed.audio(_pcm(10) / np.float32(10))
    feed.commit("c")
    pcm = recordings.pcm("c")
    assert pcm is not None
    assert len(pcm) == 20
    for _ in range(100):
        feed.audio(_pcm(90))
    feed.commit("d")
    assert recordings.pcm("d") is None


def test_an_item_of_audio_goes_before_the_open_turn(feed: TurnFeed, memory: Memory) -> None:
    """The turn's audio is taken back, the item is heard, the turn follows."""
    assert _kinds(feed.item_audio(_pcm(3), _audio("a"))) == [AppendAudio, CommitAudio]
    feed.audio(_pcm(10))
    commands = feed.item_audio(_pcm(3), _audio("b"))
    assert _kinds(commands) == [ClearAudio, AppendAudio, CommitAudio, AppendAudio]
    assert memory.heard_again == 1


def test_what_is_kept_of_a_turn_is_bounded(feed: TurnFeed) -> None:
    """A turn without end does not grow without end."""
    for _ in range(100):
        feed.audio(_pcm(90))
    feed.outdate()
    *_, audio = feed.audio(_pcm(10))
    assert isinstance(audio, AppendAudio)
    assert 1_000 <= len(audio.pcm) < 1_100
    assert feed.clear() == [ClearAudio("s")]
