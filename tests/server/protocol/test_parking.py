"""A session whose client is away gives its slot back, and goes on where it was."""

from typing import Any

import pytest

from tests.server.protocol.lines import client
from tests.server.protocol.transcripts import Player

Line = dict[str, Any]
SERVER = {
    "type": "mcp",
    "server_label": "s",
    "server_url": "https://s.example.com/mcp",
    "require_approval": "never",
}
LISTED = {
    "type": "ToolsListed",
    "item_id": "mcpl_1",
    "tools": [{"name": "look", "input_schema": {"type": "object"}}],
}
FILTERS = {"hears": True, "says": True, "calls": True}
UPDATE = client(
    "session.update",
    session={"type": "realtime", "output_modalities": ["text"], "tools": [SERVER]},
)


class _Client:
    """A client with a call that goes on, which loses its network."""

    def __init__(self, approval: str = "never", **given: Any) -> None:
        self.player = Player(**given)
        self.player.start()
        session = {
            **UPDATE["client"]["session"],
            "tools": [SERVER | {"require_approval": approval}],
        }
        self.play(client("session.update", session=session), {"tool": LISTED})

    def play(self, *lines: Line) -> list[Line]:
        """Play lines, and return what comes out."""
        return [out for line in lines for out in self.player.play(line)]

    def call(self, turn: int, key: int | None = None) -> list[Line]:
        """Let a response call the server's tool; its arguments pass a check, if there is one."""
        return self.play(
            client("response.create"),
            *(
                {"engine": {"type": kind, "turn": turn, "call": 0, **more}}
                for kind, more in (
                    ("CallStarted", {"name": "look"}),
                    ("CallArguments", {"text": "{}"}),
                    ("CallDone", {}),
                )
            ),
            *([] if key is None else [{"verdict": {"key": key, "words": "{}"}}]),
            {"engine": {"type": "ResponseDone", "turn": turn, "reason": "completed", "usage": {}}},
        )


def _events(lines: list[Line]) -> list[str]:
    return [line["server"]["type"] for line in lines if "server" in line]


def _commands(lines: list[Line]) -> list[str]:
    return [line["command"]["type"] for line in lines if "command" in line]


def _said(turn: int, key: int) -> list[Line]:
    """Let a response say a sentence, which passes a check."""
    text = {"type": "ResponseText", "turn": turn, "text": "It is."}
    return [{"engine": text}, {"verdict": {"key": key, "words": "It is."}}]


def test_what_was_refused_before_is_forgotten_with_the_slot() -> None:
    """A response that is begun without an engine is made when there is one again."""
    away = _Client(policy={"wait_for_calls": True}, filters=FILTERS)
    away.call(1)
    (call,) = [item.id for item in away.player.machine._state.conversation if "mcp_" in item.id]
    away.play(
        {"heard": {"audio_ms": 1_000}},
        {"heard": {"began_ms": 0}},
        client("response.create"),  # waits for the call
        client("input_audio_buffer.commit"),
        {"engine": {"type": "InputTranscript", "item_id": "item_3", "text": "my card"}},
    )
    ids = [item.id for item in away.player.machine._state.conversation]
    away.play({"verdict": {"key": 1, "words": None}})
    assert away.player.machine.is_idle, ids
    away.play({"park": True})
    told = away.play({"tool": {"type": "ToolReturned", "item_id": call, "output": "four"}})
    assert _events(told)[-1] == "response.created", "nothing else is waited for"
    assert not _commands(told)
    told = away.play({"unpark": True})
    assert _commands(told)[:2] == ["Close", "Open"]
    assert _commands(told)[-1] == "Respond"
    assert _events(told) == []
    (turn,) = [line["command"]["turn"] for line in told if "turn" in line.get("command", {})]
    told = away.play(*_said(turn, 2))
    assert "response.output_text.delta" in _events(told)


@pytest.mark.parametrize("approve", [True, False])
@pytest.mark.parametrize("filters", [None, FILTERS])
def test_a_request_waits_for_whoever_comes_back(filters: Line | None, *, approve: bool) -> None:
    """Nobody could answer while the client was away; it can when it is back."""
    away = _Client("always", filters=filters)
    away.call(1, None if filters is None else 1)
    away.play({"park": True}, {"clock_s": 200.0})
    told = away.play({"unpark": True})
    assert _commands(told) == ["Close", "Open", "AppendCall"]
    item = {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": approve}
    told = away.play(client("conversation.item.create", item=item))
    assert ("response.mcp_call.in_progress" in _events(told)) is approve
    assert _commands(told) == ([] if approve else ["AppendCallOutput"])


def test_nobody_comes_back_in_time_for_a_request() -> None:
    """It times out while nobody is there, and the model is told so with everything else."""
    away = _Client("always")
    away.call(1)
    away.play({"park": True})
    told = away.play({"clock_s": 301.0})
    assert _events(told) == ["conversation.item.added", "conversation.item.done"]
    assert not _commands(told)
    told = away.play({"unpark": True})
    assert _commands(told) == ["Close", "Open", "AppendCall", "AppendCallOutput"]


def test_who_finds_no_slot_tries_again() -> None:
    """What was begun meanwhile goes on: the text model's answer, and the checks of it."""
    away = _Client(
        policy={"wait_for_calls": True},
        filters=FILTERS | {"hears": False},
        delegate={"answers": "always"},
    )
    asked = away.play(client("response.create", response={"delegate": "never"}))
    assert _commands(asked)[-1] == "Respond"
    for kind, more in (
        ("CallStarted", {"name": "look"}),
        ("CallArguments", {"text": "{}"}),
        ("CallDone", {}),
    ):
        away.play({"engine": {"type": kind, "turn": 1, "call": 0, **more}})
    away.play(
        {"verdict": {"key": 1, "words": "{}"}},
        {"engine": {"type": "ResponseDone", "turn": 1, "reason": "completed", "usage": {}}},
        client("response.create"),  # waits for the call
        {"park": True},
    )
    told = away.play({"tool": {"type": "ToolReturned", "item_id": "mcp_1", "output": "four"}})
    (question,) = [
        line["asked"] for line in told if line.get("asked", {}).get("type") == "AskModel"
    ]
    told = away.play(
        {"answer": {"type": "AnswerText", "ask_id": question["ask_id"], "text": "Four."}}
    )
    (check,) = [line["to_check"] for line in told if "to_check" in line]
    away.play({"unpark": True})
    away.player.machine.park_again()
    told = away.play(
        {"verdict": {"key": check["key"], "words": "Four."}},
        {"answer": {"type": "AnswerDone", "ask_id": question["ask_id"]}},
    )
    assert _events(told)[-2:] == ["response.done", "rate_limits.updated"]
    assert "response.output_text.done" in _events(told)
    assert not _commands(told)
    told = away.play({"unpark": True})
    assert _commands(told)[-1] == "AppendText", "the answer is told with the rest"


def test_a_sentence_that_was_begun_without_a_slot_is_said() -> None:
    """In the place of an answer that was refused meanwhile; the model makes no words of its own."""
    away = _Client(
        policy={"wait_for_calls": True},
        filters={**FILTERS, "sentence": "I cannot say."},
        delegate={"answers": "always"},
    )
    away.play(client("response.create", response={"delegate": "never"}))
    for kind, more in (("CallStarted", {"name": "look"}), ("CallDone", {})):
        away.play({"engine": {"type": kind, "turn": 1, "call": 0, **more}})
    away.play(
        {"verdict": {"key": 1, "words": ""}},
        {"engine": {"type": "ResponseDone", "turn": 1, "reason": "completed", "usage": {}}},
        client("response.create"),  # waits for the call
        {"park": True},
    )
    told = away.play({"tool": {"type": "ToolReturned", "item_id": "mcp_1", "output": "four"}})
    (question,) = [
        line["asked"] for line in told if line.get("asked", {}).get("type") == "AskModel"
    ]
    answer = {"ask_id": question["ask_id"]}
    told = away.play({"answer": {"type": "AnswerText", "text": "A bomb.", **answer}})
    (check,) = [line["to_check"] for line in told if "to_check" in line]
    told = away.play({"verdict": {"key": check["key"], "words": None}})
    assert _events(told) == ["response.done", "rate_limits.updated", "response.created"]
    told = away.play({"unpark": True})
    assert _commands(told)[-2:] == ["Respond", "Recite"]
    respond, recite = [line["command"] for line in told if "command" in line][-2:]
    assert respond["recites"]
    assert recite["text"] == "I cannot say."
    said = {"type": "ResponseText", "turn": recite["turn"], "text": "I cannot say."}
    assert "response.output_text.delta" in _events(away.play({"engine": said})), "unchecked"
