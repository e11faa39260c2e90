"""Where a transport plays replies itself, the protocol follows how far it is."""

from typing import Any

import numpy as np
import pytest

from model.messages import (
    EngineInfo,
    Respond,
    ResponseAudio,
    ResponseDone,
    ResponseText,
    ResponseWord,
    Usage,
)
from model.messages import Truncate as TruncateCommand
from server.errors import ClientError
from server.protocol.events import InputAudio, Reaction, SpeechBegan
from server.protocol.items.items import AudioPart, Message
from server.protocol.machine import Limits, SessionMachine
from server.protocol.server_events import ItemRetrieved
from server.protocol.sound import EndOfAudio, PlayAudio, Played, StopAudio
from server.protocol.wire.client_events import (
    ItemCreate,
    ItemDelete,
    ItemRetrieve,
    ItemTruncate,
    OutputAudioBufferClear,
    ResponseCancel,
    ResponseCreate,
)
from tests.server.fakes import CountingIds, PlainEars
from tests.server.protocol.harness import CONFIG, VOICES

RATE_HZ = 16_000
FRAME = np.full(RATE_HZ * 80 // 1000, 0.25, dtype=np.float32)


class Talk:
    """A session whose transport plays, and what comes out of it."""

    def __init__(self, *, is_played: bool = True) -> None:
        self.machine = SessionMachine(
            CONFIG,
            EngineInfo("m", RATE_HZ, 80, (), 1),
            VOICES,
            CountingIds(),
            Limits(),
            PlainEars(),
            is_played=is_played,
        )
        self.turn = 0
        self.item_id = ""
        self.machine.start()

    def take(self, event: Any) -> list[Reaction]:
        """Let something happen."""
        reactions = self.machine.receive(event, 1_000.0)
        for reaction in reactions:
            if isinstance(reaction, Respond):
                self.turn, self.item_id = reaction.turn, reaction.item_id
        return reactions

    def ask(self) -> None:
        """Type a turn."""
        content = [{"type": "input_text", "text": "hello"}]
        item = {"type": "message", "role": "user", "content": content}
        self.take(ItemCreate(None, item, None))
        self.take(ResponseCreate(None, {}))

    def make(self, num_frames: int, *, is_done: bool = True) -> list[Reaction]:
        """Make a reply of two words, the second half way through."""
        reactions = self.take(ResponseText(CONFIG.id, self.turn, "one two"))
        for word, start_ms in (("one", 0), ("two", num_frames * 40)):
            self.take(ResponseWord(CONFIG.id, self.turn, word, start_ms))
        for _ in range(num_frames):
            reactions += self.take(ResponseAudio(CONFIG.id, self.turn, FRAME))
        if is_done:
            reactions += self.take(ResponseDone(CONFIG.id, self.turn, "completed", Usage()))
        return reactions

    def played(self, ms: int) -> list[str]:
        """Play up to a place; returns what clients are told."""
        return kinds(self.take(Played(self.item_id, ms * RATE_HZ // 1000)))

    def part(self) -> AudioPart:
        """Return what the reply is said to have said."""
        (retrieved,) = self.take(ItemRetrieve(None, self.item_id))
        assert isinstance(retrieved, ItemRetrieved)
        assert isinstance(retrieved.item, Message)
        assert retrieved.item.output_audio is not None
        return retrieved.item.output_audio

    def speak(self) -> list[Reaction]:
        """Let the user speak."""
        self.take(InputAudio(np.zeros(RATE_HZ, dtype=np.float32)))
        return self.take(SpeechBegan(500))


def kinds(reactions: list[Reaction]) -> list[str]:
    """Return the types of events."""
    return [reaction.type for reaction in reactions if hasattr(reaction, "type")]


def test_audio_is_played_and_not_sent() -> None:
    """Everything but the audio's deltas is as over a WebSocket."""
    talk = Talk()
    talk.ask()
    reactions = talk.make(10)
    assert sum(len(r.pcm) for r in reactions if isinstance(r, PlayAudio)) == 10 * len(FRAME)
    assert EndOfAudio(talk.item_id) in reactions
    assert "response.output_audio.delta" not in kinds(reactions)
    assert "response.output_audio.done" in kinds(reactions)


def test_a_reply_is_played_to_its_end() -> None:
    """It starts with its first sample and stops with its last, once."""
    talk = Talk()
    talk.ask()
    talk.make(10)
    assert talk.played(20) == ["output_audio_buffer.started"]
    assert talk.played(400) == []
    assert talk.played(800) == ["output_audio_buffer.stopped"]
    assert talk.played(800) == []


def test_a_reply_that_is_not_whole_has_not_ended() -> None:
    """What is played as fast as it is made waits for the rest."""
    talk = Talk()
    talk.ask()
    talk.make(2, is_done=False)
    assert talk.played(160) == ["output_audio_buffer.started"]
    done = talk.take(ResponseDone(CONFIG.id, talk.turn, "completed", Usage()))
    assert kinds(done)[-1] == "rate_limits.updated"
    assert "output_audio_buffer.stopped" in kinds(done)


@pytest.mark.parametrize("is_done", [True, False])
def test_speech_cuts_it_where_it_was(is_done: bool) -> None:
    """Whether the reply was still being made or not, history keeps what was played."""
    talk = Talk()
    talk.ask()
    talk.make(10, is_done=is_done)
    talk.played(20)
    talk.played(300)
    reactions = talk.speak()
    told = kinds(reactions)
    assert told[0] == "input_audio_buffer.speech_started"
    assert ("response.done" in told) is not is_done
    assert told[-2:] == ["output_audio_buffer.cleared", "conversation.item.truncated"]
    truncated: Any = next(
        r for r in reactions if getattr(r, "type", "") == "conversation.item.truncated"
    )
    assert (truncated.item_id, truncated.audio_end_ms) == (talk.item_id, 300)
    assert StopAudio(talk.item_id) in reactions
    commands = [r for r in reactions if isinstance(r, TruncateCommand)]
    assert {(c.item_id, c.heard_ms) for c in commands} == {(talk.item_id, 300)}
    # What the transport had under way is of no interest any more.
    assert talk.played(320) == []


def test_what_was_not_begun_is_not_cleared() -> None:
    """Each `started` has its end, and what did not start has none."""
    talk = Talk()
    talk.ask()
    talk.make(10)
    told = kinds(talk.speak())
    assert "output_audio_buffer.cleared" not in told
    assert "conversation.item.truncated" in told


def test_the_stop_button() -> None:
    """A cancel ends the making, a clear the playing; the clear alone ends both."""
    both = (ResponseCancel(None, None), OutputAudioBufferClear(None))
    for events in (both, both[1:]):
        talk = Talk()
        talk.ask()
        talk.make(10, is_done=False)
        talk.played(100)
        told = kinds([reaction for event in events for reaction in talk.take(event)])
        assert told.count("response.done") == 1
        assert told[-2:] == ["output_audio_buffer.cleared", "conversation.item.truncated"]
        assert talk.take(OutputAudioBufferClear(None)) == []


def test_what_is_played_after_a_cancel_was_said() -> None:
    """A cancel leaves what was played by then; what had been made before is played on."""
    talk = Talk()
    talk.ask()
    talk.make(10, is_done=False)
    talk.played(100)
    talk.take(ResponseCancel(None, None))
    for played_ms in (100, 400, 800):
        talk.played(played_ms)
        assert talk.part().heard_ms == played_ms
    assert talk.part().audio_ms == 800


def test_a_client_takes_back_what_is_played() -> None:
    """Truncated or deleted by its client, an item is not played any further."""
    for event_type in ("truncate", "delete"):
        talk = Talk()
        talk.ask()
        talk.make(10)
        talk.played(100)
        event = (
            ItemTruncate(None, talk.item_id, 0, 80)
            if event_type == "truncate"
            else ItemDelete(None, talk.item_id)
        )
        reactions = talk.take(event)
        assert StopAudio(talk.item_id) in reactions
        assert kinds(reactions).count("output_audio_buffer.cleared") == 1
        assert talk.played(120) == []


def test_a_client_that_plays_clears_for_itself() -> None:
    """Over a WebSocket there is no such buffer."""
    with pytest.raises(ClientError, match="WebRTC"):
        Talk(is_played=False).take(OutputAudioBufferClear(None))
