"""What clients send and what happens beside them, for any order: legal and not."""

from typing import Any

from hypothesis import strategies as st

Line = dict[str, Any]

_TOOL = {"type": "function", "name": "get_time"}
_SERVER = {"type": "mcp", "server_label": "s", "server_url": "https://s.example.com/mcp"}


def client(kind: str, **values: Any) -> Line:
    """Write a client's event."""
    return {"client": {"type": kind, **values}}


def _update(**session: Any) -> Line:
    return client("session.update", session={"type": "realtime", **session})


def _detection(value: Any) -> Line:
    return _update(audio={"input": {"turn_detection": value}})


def message(role: str, item_id: str | None, previous: str | None) -> Line:
    """Write an event that creates a message."""
    kind = "output_text" if role == "assistant" else "input_text"
    item = {
        "type": "message",
        "role": role,
        "id": item_id,
        "content": [{"type": kind, "text": "x"}],
    }
    return client("conversation.item.create", item=item, previous_item_id=previous)


def _function_item(kind: str, call_id: str, previous: str | None) -> Line:
    item = {"type": kind, "call_id": call_id, "name": "f", "arguments": "{}", "output": "y"}
    return client("conversation.item.create", item=item, previous_item_id=previous)


def _approval(number: int, approve: bool, previous: str | None) -> Line:
    item = {
        "type": "mcp_approval_response",
        "approval_request_id": f"mcpr_{number}",
        "approve": approve,
    }
    return client("conversation.item.create", item=item, previous_item_id=previous)


def create(destination: str | None, given: list[Line] | None, modality: str) -> Line:
    """Write an event that asks for a response."""
    response = {"conversation": destination, "input": given, "output_modalities": [modality]}
    return client("response.create", response=response)


_item_ids = st.sampled_from([f"item_{n}" for n in range(1, 9)] + ["a", "b", "nobody"])
_previous = st.none() | st.just("root") | _item_ids
JUNK = st.recursive(
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
CLIENTS = st.one_of(
    st.sampled_from(
        [
            _detection(None),
            _detection({"type": "server_vad", "idle_timeout_ms": 5_000}),
            _detection({"type": "server_vad", "interrupt_response": False}),
            _detection({"type": "semantic_vad", "create_response": False}),
            _update(audio={"input": {"transcription": {"model": "whisper-1"}}}),
            _update(instructions="be brief", tools=[_TOOL]),
            _update(tools=[_SERVER, _TOOL]),
            _update(tools=[{**_SERVER, "require_approval": "never"}]),
            _update(output_modalities=["text"]),
            _update(truncation="disabled"),
            _update(
                truncation={
                    "type": "retention_ratio",
                    "retention_ratio": 0.5,
                    "token_limits": {"post_instructions": 3},
                }
            ),
            _update(audio={"output": {"voice": "echo", "format": {"type": "audio/pcmu"}}}),
            _update(audio={"output": {"speed": 1.5}}),
            _update(delegate="always"),
            client("response.create", response={"delegate": "always"}),
            client("response.create", response={"delegate": "always", "conversation": "none"}),
            client("input_audio_buffer.commit"),
            client("input_audio_buffer.clear"),
            client("response.create"),
            client("response.cancel"),
        ]
    ),
    st.builds(
        message, st.sampled_from(["user", "assistant", "system"]), st.none() | _item_ids, _previous
    ),
    st.builds(
        _function_item,
        st.sampled_from(["function_call", "function_call_output"]),
        st.sampled_from(["call_1", "call_2", "c"]),
        _previous,
    ),
    st.builds(_approval, st.integers(1, 9), st.booleans(), _previous),
    st.builds(
        create,
        st.sampled_from([None, "auto", "none"]),
        st.none()
        | st.lists(
            st.builds(lambda item_id: {"type": "item_reference", "id": item_id}, _item_ids),
            max_size=1,
        ),
        st.sampled_from(["audio", "text"]),
    ),
    st.builds(
        lambda response_id: client("response.cancel", response_id=response_id),
        st.sampled_from([f"resp_{n}" for n in range(1, 6)]),
    ),
    st.builds(
        lambda verb, item_id: client(f"conversation.item.{verb}", item_id=item_id),
        st.sampled_from(["retrieve", "delete"]),
        _item_ids,
    ),
    st.builds(
        lambda item_id, end_ms: client(
            "conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=end_ms
        ),
        _item_ids,
        st.integers(0, 500),
    ),
    st.builds(
        lambda kind, any_: client(kind, session=any_, item=any_, response=any_), _types, JUNK
    ),
    st.builds(lambda frame: {"client": frame}, JUNK),
)
# What the engine and the ears do is legal by construction.
HAPPENINGS = st.sampled_from(
    [
        *("audio", "voice", "pause", "hearing", "transcript", "later", "full", "lost", "away"),
        *("text", "speech", "call", "arguments", "called", "other", "park"),
        *("done", "limit", "failed", "stale"),
        *("server call", "listed", "unlisted", "returned"),
        *("passed", "masked", "refused"),
        *(
            "unable",
            "answer",
            "answer call",
            "answer server call",
            "answer cut",
            "answered",
            "no answer",
        ),
    ]
)
# More of what is checked, for sessions where something is.
CHECKED = st.sampled_from(["transcript", "text", "speech", "call", "called", "passed", "refused"])
