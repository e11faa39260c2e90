"""How the user's turns begin and end, what answers them, and what is done before its time."""

from typing import Any

import pytest

from model.messages import (
    AppendAudio,
    CommitAudio,
    Open,
    Reopen,
    Respond,
)
from server.protocol.settings.config import SemanticVad, ServerVad, Transcription
from tests.server.protocol.transcripts import Player, new_machine

Line = dict[str, Any]

BEGAN: Line = {"heard": {"began_ms": 0}}
ENDED: Line = {"heard": {"ended_ms": 600}}
PAUSED: Line = {"heard": {"paused": True}}
RESUMED: Line = {"heard": {"resumed": True}}
CREATE: Line = {"client": {"type": "response.create"}}
OWN_INPUT: Line = {"client": {"type": "response.create", "response": {"input": []}}}
COMMIT: Line = {"client": {"type": "input_audio_buffer.commit"}}
CLEAR: Line = {"client": {"type": "input_audio_buffer.clear"}}


def _audio(audio_ms: int) -> Line:
    return {"heard": {"audio_ms": audio_ms}}


def _update(**audio_input: Any) -> Line:
    session = {"type": "realtime", "audio": {"input": audio_input}}
    return {"client": {"type": "session.update", "session": session}}


def _done(turn: int) -> Line:
    usage = {"output_text_tokens": 1}
    return {"engine": {"type": "ResponseDone", "turn": turn, "reason": "completed", "usage": usage}}


def _transcript(item_id: str, text: str) -> Line:
    return {"engine": {"type": "InputTranscript", "item_id": item_id, "text": text}}


def _player(**changes: Any) -> Player:
    player = Player()
    player.machine = new_machine(**changes)
    player.start()
    return player


def _played(player: Player, *lines: Line) -> list[str]:
    """Play lines; return the types of the events and the names of the commands that come out."""
    results = [result for line in lines for result in player.play(line)]
    return [next(iter(result.values()))["type"] for result in results]


TURN = ("input_audio_buffer.committed", "conversation.item.added", "conversation.item.done")


def test_a_commit_in_the_middle_of_speech_ends_the_turn() -> None:
    """The announced item is stopped and committed; a response is the client's to ask for."""
    player = _player()
    _played(player, _audio(500), BEGAN, _audio(300))
    kinds = _played(player, COMMIT)
    assert kinds == ["input_audio_buffer.speech_stopped", *TURN, "CommitAudio"]
    assert "response.created" in _played(player, _audio(500), BEGAN, ENDED)


def test_a_clear_in_the_middle_of_speech_forgets_the_turn() -> None:
    """Nothing is committed, and speech is announced as another item."""
    player = _player()
    _played(player, _audio(500), BEGAN)
    assert _played(player, CLEAR) == ["input_audio_buffer.cleared", "ClearAudio"]
    (started, *_) = player.play(BEGAN)
    assert started["server"]["item_id"] == "item_2"


def test_detection_switched_off_in_the_middle_of_speech_keeps_the_audio() -> None:
    """The client commits what was said, before and after."""
    player = _player()
    _played(player, _audio(500), BEGAN)
    assert _played(player, _update(turn_detection=None), _audio(300)) == [
        "session.updated",
        "AppendAudio",
    ]
    assert "CommitAudio" in _played(player, COMMIT)
    assert player.machine._state.conversation["item_1"].content[0].audio_ms == 800


@pytest.mark.parametrize("detection", [ServerVad, SemanticVad])
def test_with_both_flags_off_there_are_events_and_commits_only(detection: type) -> None:
    """Speech neither stops a response nor begins one."""
    player = _player(turn_detection=detection(create_response=False, interrupt_response=False))
    _played(player, CREATE)
    kinds = _played(player, _audio(500), BEGAN, PAUSED, ENDED)
    assert kinds == [
        "input_audio_buffer.speech_started",
        "AppendAudio",
        "input_audio_buffer.speech_stopped",
        *TURN,
        "CommitAudio",
    ]


def test_a_transcription_session_only_listens() -> None:
    """Turns become items and words, and nothing is ever answered."""
    player = _player(kind="transcription", transcription=Transcription())
    kinds = _played(player, _audio(500), BEGAN, PAUSED, ENDED, _transcript("item_1", "hello"))
    prefix = "conversation.item.input_audio_transcription."
    assert kinds == [
        "input_audio_buffer.speech_started",
        "AppendAudio",
        "input_audio_buffer.speech_stopped",
        *TURN,
        "CommitAudio",
        f"{prefix}delta",
        f"{prefix}completed",
    ]
    assert _played(player, CREATE) == ["error"]


def test_words_of_a_turn_that_was_not_announced_wait_for_its_commit() -> None:
    """Without detection a client knows of an item only once it is committed."""
    player = _player(turn_detection=None, transcription=Transcription())
    words = {"engine": {"type": "InputTranscriptDelta", "text": " hello"}}
    assert _played(player, _audio(500), words) == ["AppendAudio"]
    delta = "conversation.item.input_audio_transcription.delta"
    assert _played(player, COMMIT) == [*TURN, delta, "CommitAudio"]


# A reply before its time.


def _hearing(**changes: Any) -> Player:
    """Give a player in the middle of a turn."""
    player = _player(**changes)
    _played(player, _audio(500), BEGAN)
    return player


def test_a_pause_begins_a_reply_that_nobody_sees() -> None:
    """Only the engine is told; later audio is kept back."""
    player = _hearing()
    assert _played(player, PAUSED, _audio(32)) == [CommitAudio.__name__, Respond.__name__]
    assert _played(player, _done(1)) == []
    kinds = _played(player, ENDED)
    assert kinds[:4] == ["input_audio_buffer.speech_stopped", *TURN]
    assert kinds[4] == "response.created"
    assert "response.done" in kinds


def test_a_user_who_goes_on_takes_it_back() -> None:
    """The engine is given the turn again, and what was kept back."""
    player = _hearing()
    _played(player, PAUSED, _audio(32), _audio(32))
    reopened, audio = player.play(RESUMED)
    assert reopened["command"] == {"type": Reopen.__name__, "item_id": "item_3"}
    assert audio["command"] == {"type": AppendAudio.__name__, "audio_ms": 64.0}
    assert _played(player, _done(1), _transcript("item_3", "half of it")) == []


@pytest.mark.parametrize(
    ("line", "kinds"),
    [
        (COMMIT, ["input_audio_buffer.speech_stopped", *TURN, "Reopen", "CommitAudio"]),
        (CLEAR, ["input_audio_buffer.cleared", "Reopen", "ClearAudio"]),
        (_update(turn_detection={"type": "semantic_vad"}), ["Reopen", "session.updated"]),
        (CREATE, ["response.created", "Reopen", "Respond"]),
        (OWN_INPUT, ["response.created", "Reopen", "Open", "Respond"]),
    ],
)
def test_what_the_client_does_meanwhile_takes_it_back(line: Line, kinds: list[str]) -> None:
    """The engine must not remember a reply to something else."""
    player = _hearing()
    _played(player, PAUSED)
    assert _played(player, line) == kinds
    assert _played(player, RESUMED) == []


def test_a_response_beside_the_conversation_takes_nothing_back() -> None:
    """It has a memory of its own."""
    player = _hearing()
    _played(player, PAUSED)
    aside = {"type": "response.create", "response": {"conversation": "none", "input": []}}
    assert _played(player, {"client": aside}) == ["response.created", "Open", "Respond"]
    assert "Respond" not in _played(player, ENDED)


def test_what_is_refused_takes_nothing_back() -> None:
    """An event that changes nothing changes nothing."""
    player = _hearing()
    _played(player, PAUSED)
    assert _played(player, {"client": {"type": "response.cancel"}}) == ["error"]
    assert _played(player, _update(turn_detection=7)) == ["error"]
    assert "Respond" not in _played(player, ENDED)


def test_nothing_is_foreseen_where_it_could_not_come_true() -> None:
    """Not for turns that are not answered, nor under a response, nor on an outdated memory."""
    silent = _hearing(turn_detection=ServerVad(create_response=False))
    assert _played(silent, PAUSED) == []
    busy = _player(turn_detection=ServerVad(interrupt_response=False))
    _played(busy, CREATE, _audio(500), BEGAN)
    assert _played(busy, PAUSED) == []
    outdated = _hearing()
    update = {"type": "session.update", "session": {"type": "realtime", "instructions": "Sing."}}
    _played(outdated, {"client": update})
    assert _played(outdated, PAUSED) == []


def test_a_foreseen_transcript_is_told_with_the_commit() -> None:
    """It belongs to the item that the client knows, whatever the engine called it."""
    player = _hearing(transcription=Transcription())
    _played(player, PAUSED, _transcript("item_3", " hello "))
    told = [line["server"] for line in player.play(ENDED) if "server" in line]
    (completed,) = [e for e in told if e["type"].endswith("transcription.completed")]
    assert (completed["item_id"], completed["transcript"]) == ("item_1", "hello")
    kinds = [event["type"] for event in told]
    assert kinds.index(completed["type"]) < kinds.index("response.created")


def test_a_transcript_after_the_commit_finds_its_item_too() -> None:
    """The reply was foreseen, its transcript comes late."""
    player = _hearing(transcription=Transcription())
    _played(player, PAUSED, ENDED)
    (*_, completed) = player.play(_transcript("item_3", "hello"))
    assert completed["server"]["item_id"] == "item_1"


# Silence.


def _idle(**changes: Any) -> Player:
    """Give a player whose user has been silent since second 10, for 5 seconds at most."""
    player = _player(turn_detection=ServerVad(idle_timeout_ms=5_000, **changes))
    _played(player, CREATE, {"clock_s": 10.0}, _done(1))
    assert player.machine.deadline_s == 15.0
    return player


def test_silence_becomes_a_turn_even_without_audio() -> None:
    """A client that sends nothing is spoken to all the same, once a response."""
    player = _idle()
    kinds = _played(player, {"clock_s": 15.0})
    timeout = "input_audio_buffer.timeout_triggered"
    assert kinds == [timeout, *TURN, "AppendText", "response.created", "Respond"]
    assert player.machine.deadline_s is None
    _played(player, _done(2))
    assert player.machine.deadline_s == 20.0


@pytest.mark.parametrize(
    "lines",
    [
        (_audio(500), BEGAN),
        (CREATE,),
        (_audio(500), COMMIT),
        (_update(turn_detection={"type": "server_vad"}),),
        (_update(turn_detection={"type": "semantic_vad"}),),
        (_update(turn_detection=None),),
    ],
)
def test_silence_that_is_broken_is_no_timeout(lines: tuple[Line, ...]) -> None:
    """Whatever goes on in the conversation, and any other detection, ends the wait."""
    player = _idle()
    _played(player, *lines)
    assert player.machine.deadline_s is None
    assert _played(player, {"clock_s": 99.0}) == []


def test_a_timeout_counts_from_when_it_was_set() -> None:
    """Not from a reply of long ago, and not from before it was changed."""
    player = _player(turn_detection=ServerVad())
    _played(player, CREATE, {"clock_s": 10.0}, _done(1))
    detection = {"type": "server_vad", "idle_timeout_ms": 5_000}
    assert _played(player, {"clock_s": 60.0}, _update(turn_detection=detection)) == [
        "session.updated"
    ]
    assert player.machine.deadline_s == 65.0
    _played(player, {"clock_s": 62.0}, _update(turn_detection=detection))
    assert player.machine.deadline_s == 65.0, "nothing was changed"
    longer = {**detection, "idle_timeout_ms": 9_000}
    _played(player, {"clock_s": 64.0}, _update(turn_detection=longer))
    assert player.machine.deadline_s == 73.0


def test_silence_is_not_answered_where_turns_are_not() -> None:
    """With `create_response` off the client decides."""
    player = _idle(create_response=False)
    assert "response.created" not in _played(player, {"clock_s": 15.0})


def test_a_response_beside_the_conversation_is_not_waited_after() -> None:
    """Only what is said to the user can leave a user silent."""
    player = _player(turn_detection=ServerVad(idle_timeout_ms=5_000))
    aside = {"type": "response.create", "response": {"conversation": "none"}}
    (created, *_) = player.play({"client": aside})
    session_id = f"sess_1/{created['server']['response']['id']}"
    _played(player, {"engine": {**_done(1)["engine"], "session_id": session_id}})
    assert player.machine.deadline_s is None


# The engine loses everything.

LOST: Line = {"engine": {"type": "SessionFailed", "message": "lost"}}


def test_what_was_being_said_is_told_again() -> None:
    """The turn goes on in a new session of the engine."""
    player = _hearing()
    assert _played(player, PAUSED, _audio(100), LOST)[2:] == [
        "error",
        "Close",
        Open.__name__,
        AppendAudio.__name__,
    ]
    assert "response.created" in _played(player, RESUMED, ENDED)


def test_what_was_said_and_not_understood_yet_is_heard_again() -> None:
    """Its sound is kept, so its transcript still comes."""
    player = _hearing(
        transcription=Transcription(), turn_detection=ServerVad(create_response=False)
    )
    _played(player, ENDED)
    assert _played(player, LOST) == ["error", "Close", "Open", "AppendAudio", "CommitAudio"]
    assert _played(player, _transcript("item_1", "hello"))[-1].endswith("completed")


def test_what_cannot_be_heard_again_has_no_transcript() -> None:
    """The client is told so."""
    player = _hearing(
        transcription=Transcription(), turn_detection=ServerVad(create_response=False)
    )
    _played(player, ENDED)
    player.machine._state.recordings.forget("item_1")
    failed = "conversation.item.input_audio_transcription.failed"
    assert _played(player, LOST) == ["error", failed, "Close", "Open"]


def test_a_response_that_was_owed_is_not_forgotten() -> None:
    """The turn that waited for the one that failed is answered."""
    player = _player(turn_detection=ServerVad(interrupt_response=False))
    _played(player, CREATE, _audio(500), BEGAN, ENDED)
    kinds = _played(player, LOST)
    assert kinds.index("response.done") < kinds.index("error") < kinds.index("response.created")
    assert kinds[-1] == "Respond"
