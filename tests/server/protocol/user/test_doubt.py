"""While it is in doubt whether the user interrupts, what a transport plays is held back."""

import pytest

from server.protocol.events import Reaction, SpeechBegan, SpeechDismissed, SpeechSuspected
from server.protocol.sound import PauseAudio, ResumeAudio, StopAudio
from server.protocol.user.doubt import Doubt
from server.protocol.wire.client_events import (
    InputAudioBufferClear,
    ResponseCancel,
    SessionUpdate,
)
from tests.server.protocol.reply.test_playout import Talk, kinds


def _sounds(reactions: list[Reaction]) -> list[object]:
    return [r for r in reactions if isinstance(r, PauseAudio | ResumeAudio | StopAudio)]


def _talking(*, is_played: bool = True, is_done: bool = False) -> Talk:
    """Return a session in which a reply is heard."""
    talk = Talk(is_played=is_played)
    talk.ask()
    talk.make(20, is_done=is_done)
    if is_played:
        talk.played(400)
    return talk


def test_a_false_interruption_is_a_pause_and_nothing_else() -> None:
    """Clients are told nothing, and the reply goes on."""
    talk = _talking()
    assert talk.take(SpeechSuspected()) == [PauseAudio()]
    assert talk.take(SpeechDismissed()) == [ResumeAudio()]
    assert talk.machine.deadline_s is None
    assert "response.done" in kinds(talk.make(1))
    assert talk.part().audio_ms == 21 * 80


@pytest.mark.parametrize("is_done", [False, True])
def test_an_interruption_ends_what_was_paused(*, is_done: bool) -> None:
    """At the place where it was paused; what is said next is not held back."""
    talk = _talking(is_done=is_done)
    talk.take(SpeechSuspected())
    reactions = talk.take(SpeechBegan(0))
    assert _sounds(reactions) == [StopAudio(talk.item_id), ResumeAudio()]
    told = kinds(reactions)
    assert told[0] == "input_audio_buffer.speech_started"
    assert told[-2:] == ["output_audio_buffer.cleared", "conversation.item.truncated"]
    assert talk.part().audio_ms == 400


@pytest.mark.parametrize(
    "event",
    [
        InputAudioBufferClear(None),
        SessionUpdate(None, {"type": "realtime", "audio": {"input": {"turn_detection": None}}}),
    ],
)
def test_a_doubt_ends_with_its_sound(event: InputAudioBufferClear | SessionUpdate) -> None:
    """Where voice detection begins anew, nothing would dismiss it."""
    talk = _talking()
    talk.take(SpeechSuspected())
    assert _sounds(talk.take(event)) == [ResumeAudio()]


def test_a_doubt_ends_by_itself() -> None:
    """A client that sends no more sound is played on to."""
    talk = _talking()
    talk.take(SpeechSuspected())
    deadline_s = talk.machine.deadline_s
    assert deadline_s is not None
    assert not talk.machine.tick(deadline_s - 0.1)
    assert talk.machine.tick(deadline_s) == [ResumeAudio()]
    assert talk.machine.deadline_s is None
    assert not _sounds(talk.take(SpeechDismissed()))


def test_a_cancelled_reply_goes_on_as_far_as_it_was_made() -> None:
    """As without a doubt."""
    talk = _talking()
    talk.take(SpeechSuspected())
    talk.take(ResponseCancel(None, None))
    assert _sounds(talk.take(SpeechDismissed())) == [ResumeAudio()]


def test_clients_that_play_are_told_nothing() -> None:
    """Nothing can be held back that they have."""
    talk = _talking(is_played=False)
    assert not talk.take(SpeechSuspected())
    assert not talk.take(SpeechDismissed())
    assert not Doubt(is_played=False).begin(1.0)


def test_speech_would_interrupt_as_long_as_anything_is_heard() -> None:
    """A client plays what it was sent in real time: 1.6 s of it, from the first on."""
    talk = _talking(is_played=False, is_done=True)
    turns = talk.machine._turns
    assert turns.would_interrupt(1_001.5)
    assert not turns.would_interrupt(1_001.7)
    talk = _talking(is_done=True)
    assert talk.machine._turns.would_interrupt(2_000.0)
    talk.played(1_600)
    assert not talk.machine._turns.would_interrupt(2_000.0)


def test_where_speech_does_not_interrupt_nothing_is_in_doubt() -> None:
    """Speech is told of at once."""
    talk = _talking()
    detection = {"type": "server_vad", "interrupt_response": False}
    audio = {"input": {"turn_detection": detection}}
    talk.take(SessionUpdate(None, {"type": "realtime", "audio": audio}))
    assert not talk.machine._turns.would_interrupt(1_000.0)
