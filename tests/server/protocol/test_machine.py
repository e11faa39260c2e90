"""Whatever happens, in whatever order, the rules of the protocol hold."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.protocol.world import World

Line = dict[str, Any]

_TOOL = {"type": "function", "name": "get_time"}


def _client(kind: str, **values: Any) -> Line:
    return {"client": {"type": kind, **values}}


def _update(**session: Any) -> Line:
    return _client("session.update", session={"type": "realtime", **session})


def _detection(value: Any) -> Line:
    return _update(audio={"input": {"turn_detection": value}})


def _message(role: str, item_id: str | None, previous: str | None) -> Line:
    kind = "output_text" if role == "assistant" else "input_text"
    item = {
        "type": "message",
        "role": role,
        "id": item_id,
        "content": [{"type": kind, "text": "x"}],
    }
    return _client("conversation.item.create", item=item, previous_item_id=previous)


def _function_item(kind: str, call_id: str, previous: str | None) -> Line:
    item = {"type": kind, "call_id": call_id, "name": "f", "arguments": "{}", "output": "y"}
    return _client("conversation.item.create", item=item, previous_item_id=previous)


def _create(destination: str | None, given: list[Line] | None, modality: str) -> Line:
    response = {"conversation": destination, "input": given, "output_modalities": [modality]}
    return _client("response.create", response=response)


_item_ids = st.sampled_from([f"item_{n}" for n in range(1, 9)] + ["a", "b", "nobody"])
_previous = st.none() | st.just("root") | _item_ids
_junk = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 6000) | st.floats(-2, 2) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["type", "audio", "input", "output", "content", "text", "id", "voice"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
_types = st.sampled_from(
    [
        "session.update",
        "input_audio_buffer.commit",
        "conversation.item.create",
        "conversation.item.truncate",
        "response.create",
        "response.cancel",
        "nonsense",
    ]
)
_clients = st.one_of(
    st.sampled_from(
        [
            _detection(None),
            _detection({"type": "server_vad", "idle_timeout_ms": 5_000}),
            _detection({"type": "server_vad", "interrupt_response": False}),
            _detection({"type": "semantic_vad", "create_response": False}),
            _update(audio={"input": {"transcription": {"model": "whisper-1"}}}),
            _update(instructions="be brief", tools=[_TOOL]),
            _update(output_modalities=["text"]),
            _update(audio={"output": {"voice": "echo", "format": {"type": "audio/pcmu"}}}),
            _update(audio={"output": {"speed": 1.5}}),
            _client("input_audio_buffer.commit"),
            _client("input_audio_buffer.clear"),
            _client("response.create"),
            _client("response.cancel"),
        ]
    ),
    st.builds(
        _message, st.sampled_from(["user", "assistant", "system"]), st.none() | _item_ids, _previous
    ),
    st.builds(
        _function_item,
        st.sampled_from(["function_call", "function_call_output"]),
        st.sampled_from(["call_1", "call_2", "c"]),
        _previous,
    ),
    st.builds(
        _create,
        st.sampled_from([None, "auto", "none"]),
        st.none()
        | st.lists(
            st.builds(lambda item_id: {"type": "item_reference", "id": item_id}, _item_ids),
            max_size=1,
        ),
        st.sampled_from(["audio", "text"]),
    ),
    st.builds(
        lambda response_id: _client("response.cancel", response_id=response_id),
        st.sampled_from([f"resp_{n}" for n in range(1, 6)]),
    ),
    st.builds(
        lambda verb, item_id: _client(f"conversation.item.{verb}", item_id=item_id),
        st.sampled_from(["retrieve", "delete"]),
        _item_ids,
    ),
    st.builds(
        lambda item_id, end_ms: _client(
            "conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=end_ms
        ),
        _item_ids,
        st.integers(0, 500),
    ),
    st.builds(
        lambda kind, any_: _client(kind, session=any_, item=any_, response=any_), _types, _junk
    ),
    st.builds(lambda frame: {"client": frame}, _junk),
)
# What the engine and the ears do is legal by construction.
_happenings = st.sampled_from(
    [
        *("audio", "voice", "pause", "hearing", "transcript", "later", "full", "lost", "away"),
        *("text", "speech", "call", "arguments", "called", "other"),
        *("done", "limit", "failed", "stale"),
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_clients | _happenings, max_size=40))
def test_only_documented_errors_and_every_begin_has_its_end(lines: list[Line | str]) -> None:
    """Random sequences, legal and not: nothing raises, ids agree, what begins ends just once."""
    world = World()
    for line in lines:
        world.play(line)
    world.end()


@settings(max_examples=50, deadline=None)
@given(st.lists(_clients | _happenings, max_size=30))
def test_a_session_can_end_at_any_moment(lines: list[Line | str]) -> None:
    """Every begin has its end then, too."""
    world = World()
    for line in lines:
        world.play(line)
    world.end_early()


def test_what_is_begun_while_the_engine_is_away_is_made_when_it_is_back() -> None:
    """A response of the conversation, one beside it, and what was said before both."""
    world = World()
    create = _client("response.create")
    for line in (_message("user", "a", None), create, "text", "speech"):
        world.play(line)
    world.player.play({"clock_s": 9.0})  # long enough to have heard it
    world.play("away")
    assert [seen.is_done for seen in world.seen.values()] == [True]
    for line in (_message("user", "b", None), create, _create("none", None, "text")):
        world.play(line)
    assert not world.replies
    world.play("away")
    assert [reply.session_id for reply in world.replies] == ["sess_1", "sess_1/resp_3"]
    assert world.memory.words == ["w1", "x", "x"]
    world.end()


def test_an_engine_that_does_not_come_back_ends_the_session() -> None:
    """What is in progress fails, and the connection closes as a server fault."""
    world = World()
    for line in (_client("response.create"), "away", _client("response.create")):
        world.play(line)
    *events, hangup = world.player.play({"engine": {"type": "EngineGone", "message": "gone"}})
    kinds = [event["server"]["type"] for event in events]
    assert kinds == ["response.done", "rate_limits.updated", "error"]
    assert hangup == {"hangup": 1011, "reason": "server_error.engine_failed"}


def test_output_of_a_cancelled_response_is_dropped_during_the_next() -> None:
    """A late delta of what was cancelled never plays into its successor."""
    world = World()
    create = _client("response.create")
    for line in (create, "text", "speech", _client("response.cancel"), create, "stale", "speech"):
        world.play(line)
    assert len(world.over) == 1
    assert len(world.seen["resp_2"].items) == 1
    world.end()


def test_a_response_beside_the_conversation_can_be_refused_for_want_of_a_slot() -> None:
    """It fails by itself; the conversation goes on."""
    world = World()
    for line in ("full", _create("none", None, "text"), _client("response.create"), "speech"):
        world.play(line)
    assert world.seen["resp_1"].is_done
    assert not world.seen["resp_2"].is_done
    world.end()
