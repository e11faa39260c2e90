"""Whatever happens, in whatever order, the rules of the protocol hold."""

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from model.engine.messages import Cancel, Respond
from tests.server.protocol.transcripts import Player

Line = dict[str, Any]

# Every code that the API documents, and ours for what this server cannot do.
DOCUMENTED = {
    None,
    "cannot_update_voice",
    "conversation_already_has_active_response",
    "decimal_above_max_value",
    "input_audio_buffer_commit_empty",
    "invalid_event",
    "invalid_type",
    "invalid_value",
    "item_create_duplicate_item_id",
    "item_create_invalid_previous_item_id",
    "item_delete_invalid_item_id",
    "item_retrieve_invalid_item_id",
    "item_truncate_invalid_item_id",
    "missing_required_parameter",
    "response_cancel_not_active",
    "unknown_parameter",
    "unsupported_content_type",
    "unsupported_parameter",
}


def _update(**session: Any) -> Line:
    return {"client": {"type": "session.update", "session": {"type": "realtime", **session}}}


def _detection(value: Any) -> Line:
    return _update(audio={"input": {"turn_detection": value}})


_item_ids = st.sampled_from([f"item_{n}" for n in range(1, 9)] + ["a", "b", "nobody"])
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
            _detection({"type": "server_vad"}),
            _detection({"type": "server_vad", "interrupt_response": False}),
            _detection({"type": "semantic_vad", "create_response": False}),
            _update(audio={"input": {"transcription": {"model": "whisper-1"}}}),
            _update(instructions="be brief"),
            _update(output_modalities=["text"]),
            _update(audio={"output": {"voice": "echo", "format": {"type": "audio/pcmu"}}}),
            {"client": {"type": "input_audio_buffer.commit"}},
            {"client": {"type": "input_audio_buffer.clear"}},
            {"client": {"type": "response.create"}},
            {"client": {"type": "response.create", "response": {"conversation": "none"}}},
            {"client": {"type": "response.cancel"}},
        ]
    ),
    st.builds(
        lambda role, item_id, previous: {
            "client": {
                "type": "conversation.item.create",
                "previous_item_id": previous,
                "item": {
                    "type": "message",
                    "role": role,
                    "id": item_id,
                    "content": [
                        {
                            "type": "output_text" if role == "assistant" else "input_text",
                            "text": "x",
                        }
                    ],
                },
            }
        },
        st.sampled_from(["user", "assistant", "system"]),
        st.sampled_from([None, "a", "b"]),
        st.none() | st.just("root") | _item_ids,
    ),
    st.builds(
        lambda verb, item_id: {"client": {"type": f"conversation.item.{verb}", "item_id": item_id}},
        st.sampled_from(["retrieve", "delete"]),
        _item_ids,
    ),
    st.builds(
        lambda item_id, end_ms: {
            "client": {
                "type": "conversation.item.truncate",
                "item_id": item_id,
                "content_index": 0,
                "audio_end_ms": end_ms,
            }
        },
        _item_ids,
        st.integers(0, 500),
    ),
    st.builds(
        lambda kind, session: {
            "client": {"type": kind, "session": session, "item": session, "response": session}
        },
        _types,
        _junk,
    ),
    st.builds(lambda frame: {"client": frame}, _junk),
)
# What the engine and the ears do is legal by construction; `World` fills in turns and items.
_world = st.sampled_from(
    ["audio", "voice", "text", "speech", "word", "done", "limit", "transcript"]
)


class World:
    """Play legal engine outputs and heard speech to a machine, and watch what comes out."""

    def __init__(self) -> None:
        self.player = Player()
        self.turns: list[int] = []  # of responses that the engine has not ended
        self.commits: list[str] = []  # items whose transcripts are due
        self.heard_ms = 0
        self.is_voice = False
        self.opened: Counter[tuple[str, str]] = Counter()
        self.done: Counter[tuple[str, str]] = Counter()
        self.event_ids: set[str] = set()
        self.cancelled: list[int] = []
        for line in self.player.start():
            self._watch(line)

    def play(self, line: Line | str) -> None:
        """Play a client's line, or let the world do something."""
        if line == "stale":
            for turn in self.cancelled:
                output = {"type": "ResponseAudio", "turn": turn, "audio_ms": 80}
                assert not self.player.play({"engine": output}), "what is over says nothing"
            return
        for played in [line] if isinstance(line, dict) else self._happenings(line):
            for result in self.player.play(played):
                self._watch(result)

    def _happenings(self, kind: str) -> list[Line]:
        turn = self.turns[0] if self.turns else 99
        match kind:
            case "audio":
                self.heard_ms += 100
                return [{"heard": {"audio_ms": 100}}]
            case "voice":
                return self._voice()
            case "speech":
                return [{"engine": {"type": "ResponseAudio", "turn": turn, "audio_ms": 80}}]
            case "text":
                return [{"engine": {"type": "ResponseText", "turn": turn, "text": " hi"}}]
            case "word":
                return [
                    {"engine": {"type": "ResponseWord", "turn": turn, "text": "hi", "start_ms": 0}},
                    {"engine": {"type": "InputTranscriptDelta", "text": " hm"}},
                ]
            case "done" | "limit":
                if self.turns:
                    self.turns.pop(0)
                reason = "completed" if kind == "done" else "max_output_tokens"
                usage = {"output_text_tokens": 1}
                return [
                    {
                        "engine": {
                            "type": "ResponseDone",
                            "turn": turn,
                            "reason": reason,
                            "usage": usage,
                        }
                    }
                ]
            case _:
                if not self.commits:
                    return []
                item_id = self.commits.pop(0)
                return [{"engine": {"type": "InputTranscript", "item_id": item_id, "text": "hm"}}]

    def _voice(self) -> list[Line]:
        """Begin or end speech, as the ears do: never without detection, and again after a reset."""
        if self.player.machine.config.turn_detection is None:
            self.is_voice = False
            return []
        self.is_voice = not self.is_voice
        if self.is_voice:
            return [{"heard": {"began_ms": max(0, self.heard_ms - 300)}}]
        return [{"heard": {"ended_ms": self.heard_ms}}]

    def _watch(self, line: Line) -> None:
        if "command" in line:
            self._watch_command(line["command"])
            return
        event = line["server"]
        kind = event["type"]
        assert event["event_id"] not in self.event_ids, "event ids are unique"
        self.event_ids.add(event["event_id"])
        if kind == "error":
            assert event["error"]["code"] in DOCUMENTED, event
            assert event["error"]["type"] == "invalid_request_error", event
        if kind in ("input_audio_buffer.committed", "input_audio_buffer.cleared"):
            # The ears begin anew after a commit or clear by hand; after their own it is so anyway.
            self.is_voice = False
        self._watch_lifecycle(kind, event)

    def _watch_command(self, command: Line) -> None:
        if command["type"] == Respond.__name__:
            self.turns.append(command["turn"])
        if command["type"] == Cancel.__name__:
            self.turns.remove(command["turn"])
            self.cancelled.append(command["turn"])
        if command["type"] == "CommitAudio":
            self.commits.append(command["item_id"])
        if command["type"] == "Close":
            assert not self.turns, "the engine does not start over under a response"
            assert not self.commits, "nor while a transcript is due"

    def _watch_lifecycle(self, kind: str, event: Line) -> None:
        match kind:
            case "response.created" | "response.done":
                key = ("response", event["response"]["id"])
            case "response.output_item.added" | "response.output_item.done":
                key = ("output", event["item"]["id"])
            case "conversation.item.added" | "conversation.item.done":
                key = ("item", event["item"]["id"])
            case "response.content_part.added" | "response.content_part.done":
                key = ("part", event["item_id"])
            case _:
                if "response_id" in event:
                    assert self.opened["response", event["response_id"]] == 1
                    assert not self.done["response", event["response_id"]], "nothing after done"
                return
        counts = self.opened if kind.endswith(("added", "created")) else self.done
        counts[key] += 1
        if counts is self.done:
            assert self.done[key] <= self.opened[key], f"{key} is done before it began"


@settings(max_examples=150, deadline=None)
@given(st.lists(_clients | _world, max_size=40))
def test_only_documented_errors_and_every_begin_has_its_end(lines: list[Line | str]) -> None:
    """Random sequences, legal and not: nothing raises, and what begins ends exactly once."""
    world = World()
    for line in lines:
        world.play(line)
    # Let what is still going on come to its end.
    for _ in range(4):
        world.play("done")
        world.play("transcript")
    for key, count in world.opened.items():
        deleted_and_made_again = key[0] == "item" and key[1] in ("a", "b")
        assert world.done[key] == count, key
        assert count == 1 or deleted_and_made_again, key


def test_output_of_a_cancelled_response_is_dropped_during_the_next() -> None:
    """A late delta of what was cancelled never plays into its successor."""
    world = World()
    create = {"client": {"type": "response.create"}}
    for line in (create, "text", "speech", {"client": {"type": "response.cancel"}}, create):
        world.play(line)
    world.play("stale")
    world.play("speech")
    assert world.opened["output", "item_2"] == 1
