"""Whatever happens, in whatever order, the rules of the protocol hold."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.messages import AppendAudio, CommitAudio
from server.errors import ClientError
from server.protocol.events import Refusal
from server.protocol.wire.client_events import InputAudioBufferCommit
from tests.server.fakes import PlainEars
from tests.server.protocol.lines import CHECKED, CLIENTS, HAPPENINGS, Line, client, create, message
from tests.server.protocol.transcripts import new_machine
from tests.server.protocol.world import World

# The engine's own words are w1, w2 and so on: by these two it says that it cannot answer.
DELEGATES = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {
            "recites": st.booleans(),
            "answers": st.sampled_from(["unable", "always"]),
            "phrases": st.just(["w1 w2"]),
        }
    ),
)


@settings(max_examples=150, deadline=None)
@given(DELEGATES, st.lists(CLIENTS | HAPPENINGS, max_size=40))
def test_only_documented_errors_and_every_begin_has_its_end(
    delegate: Line | None, lines: list[Line | str]
) -> None:
    """Random sequences, legal and not: nothing raises, ids agree, what begins ends just once."""
    world = World(delegate)
    for line in lines:
        world.play(line)
    world.end()


@settings(max_examples=150, deadline=None)
@given(
    DELEGATES, st.sampled_from(["", "s1 s2"]), st.lists(CLIENTS | HAPPENINGS | CHECKED, max_size=60)
)
def test_the_rules_hold_where_words_are_checked(
    delegate: Line | None, sentence: str, lines: list[Line | str]
) -> None:
    """Verdicts come late and in any order, and refuse what was heard, said and called.

    With a text model or without, and with a sentence in the place of what is refused or without.
    """
    world = World(delegate, is_filtered=True, sentence=sentence)
    for line in lines:
        world.play(line)
    world.end()


@settings(max_examples=100, deadline=None)
@given(DELEGATES, st.integers(1, 12), st.lists(CLIENTS | HAPPENINGS, max_size=60))
def test_the_rules_hold_where_few_items_are_kept(
    delegate: Line | None, max_items: int, lines: list[Line | str]
) -> None:
    """Clients are told of every item that is dropped, whatever goes on meanwhile."""
    world = World(delegate, max_items=max_items)
    for line in lines:
        world.play(line)
    world.end()
    kept = [item.id for item in world.player.machine._state.conversation]
    assert kept == world.order
    assert len(kept) <= max(max_items, 2)


@settings(max_examples=50, deadline=None)
@given(DELEGATES, st.booleans(), st.lists(CLIENTS | HAPPENINGS, max_size=30))
def test_a_session_can_end_at_any_moment(
    delegate: Line | None, is_filtered: bool, lines: list[Line | str]
) -> None:
    """Every begin has its end then, too."""
    world = World(delegate, is_filtered=is_filtered, sentence="s1 s2")
    for line in lines:
        world.play(line)
    world.end_early()


def test_what_is_begun_while_the_engine_is_away_is_made_when_it_is_back() -> None:
    """A response of the conversation, one beside it, and what was said before both."""
    world = World()
    ask = client("response.create")
    for line in (message("user", "a", None), ask, "text", "speech"):
        world.play(line)
    world.player.play({"clock_s": 9.0})  # long enough to have heard it
    world.play("away")
    assert [seen.is_done for seen in world.seen.values()] == [True]
    for line in (message("user", "b", None), ask, create("none", None, "text")):
        world.play(line)
    assert not world.replies
    world.play("away")
    assert [reply.session_id for reply in world.replies] == ["sess_1", "sess_1/resp_3"]
    assert world.memory.words == ["w1", "x", "x"]
    world.end()


def test_an_engine_that_does_not_come_back_ends_the_session() -> None:
    """What is in progress fails, and the connection closes as a server fault."""
    world = World()
    for line in (client("response.create"), "away", client("response.create")):
        world.play(line)
    *events, hangup = world.player.play({"engine": {"type": "EngineGone", "message": "gone"}})
    kinds = [event["server"]["type"] for event in events]
    assert kinds == ["response.done", "rate_limits.updated", "error"]
    assert hangup == {"hangup": "engine_failed", "text": "server_error.engine_failed"}


def test_a_commit_by_hand() -> None:
    """What is held back of the audio is heard first, and then all begins anew."""
    ears = PlainEars(num_held=160)
    machine = new_machine(ears, turn_detection=None)
    ears.hear(bytes(2 * 3_200))
    (fed,) = machine.listen(0.0)
    assert isinstance(fed, AppendAudio)
    assert len(fed.pcm) == 3_040
    fed, *_, commit = machine.receive(InputAudioBufferCommit(None), 0.0)
    assert isinstance(fed, AppendAudio)
    assert (len(fed.pcm), type(commit)) == (160, CommitAudio)
    assert ears.done == ["restart"]


def test_what_was_heard_before_a_commit_is_not_lost_if_the_commit_is_refused() -> None:
    """Too little audio: the model hears it all the same, and then the client is told."""
    ears = PlainEars(num_held=160)
    machine = new_machine(ears, turn_detection=None)
    ears.hear(bytes(2 * 320))
    machine.listen(0.0)
    fed, refusal = machine.receive(InputAudioBufferCommit(None), 0.0)
    assert isinstance(fed, AppendAudio)
    assert isinstance(refusal, Refusal)
    assert refusal.error.code == "input_audio_buffer_commit_empty"
    assert not ears.done
    with pytest.raises(ClientError):
        machine.receive(InputAudioBufferCommit(None), 0.0)


def test_output_of_a_cancelled_response_is_dropped_during_the_next() -> None:
    """A late delta of what was cancelled never plays into its successor."""
    world = World()
    ask = client("response.create")
    for line in (ask, "text", "speech", client("response.cancel"), ask, "stale", "speech"):
        world.play(line)
    assert len(world.over) == 1
    assert len(world.seen["resp_2"].items) == 1
    world.end()


def test_a_response_beside_the_conversation_can_be_refused_for_want_of_a_slot() -> None:
    """It fails by itself; the conversation goes on."""
    world = World()
    for line in ("full", create("none", None, "text"), client("response.create"), "speech"):
        world.play(line)
    assert world.seen["resp_1"].is_done
    assert not world.seen["resp_2"].is_done
    world.end()
