"""Each call has one end, in whatever order answers, outcomes, cancels and ends come."""

from collections import Counter, defaultdict
from dataclasses import asdict
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from server.protocol.mcp.outcomes import Decision
from tests.server.protocol.lines import client, message
from tests.server.protocol.transcripts import Player

Line = dict[str, Any]

_TOOLS = [
    {"name": "free", "input_schema": {"type": "object"}},
    {"name": "held", "input_schema": {"type": "object"}},
]
_SERVER = {
    "type": "mcp",
    "server_label": "s",
    "server_url": "https://s.example.com/mcp",
    "require_approval": {"never": {"tool_names": ["free"]}},
}
_ENDS = ("response.mcp_call.completed", "response.mcp_call.failed")
_OPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("respond", "free", "held", "function", "half", "done", "cancel"),
                *("approve", "deny", "return", "fail", "output", "delete", "later"),
                *("away", "speak", "list", "park"),
            ]
        ),
        st.integers(0, 3),
    ),
    max_size=50,
)


class Course:
    """Play a session with calls, and count the ends of each."""

    def __init__(self, *, waits: bool) -> None:
        policy = {"rules": [{"tool": "function"}], "approval_timeout_s": 50}
        if waits:
            policy |= {"wait_for_calls": True, "output_timeout_s": 40}
        self.player = Player(policy=policy)
        self.turn: int | None = None
        self.num_calls = 0
        self.now_s = 0.0
        self.is_away = False
        self.is_parked = False
        self.asked: list[str] = []  # requests for approval
        self.running: list[str] = []  # calls that a server carries out
        self.awaited: list[str] = []  # functions' `call_id`s
        self.items: list[str] = []
        self.listings: list[str] = []
        self.begun: set[str] = set()
        self.dropped: set[str] = set()
        self.ends: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.decisions: dict[str, list[str]] = defaultdict(list)
        self._take(self.player.start())
        tools = [_SERVER, {"type": "function", "name": "function"}]
        self.play(client("session.update", session={"type": "realtime", "tools": tools}))
        self.play({"tool": {"type": "ToolsListed", "item_id": "mcpl_1", "tools": _TOOLS}})

    def play(self, line: Line) -> None:
        """Play a line and take what comes out."""
        self._take(self.player.play(line))

    def _take(self, lines: list[Line]) -> None:
        for line in lines:
            match line:
                case {"command": {"type": "Respond", "turn": turn}}:
                    self.turn, self.num_calls = turn, 0
                case {"command": {"type": "Cancel", "turn": turn}} if turn == self.turn:
                    self.turn = None
                case {"asked": {"type": "ListTools", "item_id": item_id}}:
                    self.listings.append(item_id)
                case {"asked": {"type": "CallTool", "item_id": item_id}}:
                    assert item_id not in self.begun, "a call is carried out once"
                    self.begun.add(item_id)
                    self.running.append(item_id)
                case {"asked": {"type": "DropTool", "item_id": item_id}}:
                    self.dropped.add(item_id)
                case {"asked": {"type": "Decision", "item_id": item_id, "what": what}}:
                    self.decisions[item_id].append(what)
                case {"server": event}:
                    self._see(event)
                case _:
                    pass

    def _see(self, event: Line) -> None:
        if event["type"] in _ENDS:
            self.ends[event["item_id"]] += 1
        if event["type"] == "error":
            kind, code = event["error"]["type"], event["error"]["code"]
            assert kind == "invalid_request_error" or code == "engine_failed", event
        if event["type"] != "conversation.item.done":
            return
        item = event["item"]
        self.items.append(item["id"])
        match item["type"]:
            case "mcp_approval_request":
                self.asked.append(item["id"])
            case "mcp_approval_response":
                self.answers[item["approval_request_id"]] += 1
            case "mcp_call":
                assert (item["output"] is None) is not (item["error"] is None), item
            case "function_call" if item["status"] == "completed":
                self.awaited.append(item["call_id"])
            case "function_call_output":
                self.answers[item["call_id"]] += 1

    def do(self, op: str, which: int) -> None:  # noqa: C901, PLR0912 - a case each
        """Do one thing, if it can be done now."""
        if self.is_parked and op not in ("park", "return", "fail", "later"):
            return
        match op:
            case "respond":
                self.play(client("response.create"))
            case "free" | "held" | "function" if self.turn is not None:
                self._call(op)
            case "half" if self.turn is not None:
                self._engine("CallStarted", call=self.num_calls, name="free")
                self.play(client("response.cancel"))
            case "done" if self.turn is not None:
                turn, self.turn = self.turn, None
                done = {"type": "ResponseDone", "turn": turn, "reason": "completed", "usage": {}}
                self.play({"engine": done})
            case "cancel":
                self.play(client("response.cancel"))
            case "approve" | "deny" if self.asked:
                request_id = self.asked[which % len(self.asked)]
                item = {"type": "mcp_approval_response", "approval_request_id": request_id}
                item["approve"] = op == "approve"  # type: ignore[assignment]
                self.play(client("conversation.item.create", item=item))
            case "return" | "fail" if self.running:
                self._outcome(op, self.running[which % len(self.running)])
            case "output" if self.awaited and which:
                call_id = self.awaited[which % len(self.awaited)]
                if not self.answers[call_id]:
                    item = {"type": "function_call_output", "call_id": call_id, "output": "x"}
                    self.play(client("conversation.item.create", item=item))
            case "delete" if self.items or self.running:
                ids = [*self.running, *self.items]
                self.play(client("conversation.item.delete", item_id=ids[which % len(ids)]))
            case "later":
                self.now_s += 15.0
                self.play({"clock_s": self.now_s})
            case "away":
                self._away()
            case "park":
                self._park()
            case "speak":
                self.play(message("user", None, None))
            case "list":
                again = {**_SERVER, "server_url": f"https://{which}.example.com/mcp"}
                session = {"type": "realtime", "tools": [_SERVER, {**again, "server_label": "t"}]}
                self.play(client("session.update", session=session))
            case _:
                pass

    def _engine(self, kind: str, **fields: Any) -> None:
        self.play({"engine": {"type": kind, "turn": self.turn, **fields}})

    def _call(self, name: str) -> None:
        call, self.num_calls = self.num_calls, self.num_calls + 1
        self._engine("CallStarted", call=call, name=name)
        self._engine("CallArguments", call=call, text="{}")
        self._engine("CallDone", call=call)

    def _outcome(self, op: str, item_id: str) -> None:
        if op == "return":
            self.play({"tool": {"type": "ToolReturned", "item_id": item_id, "output": "x"}})
        else:
            error = {"kind": "http_error", "message": "no", "code": 0}
            self.play({"tool": {"type": "ToolFailed", "item_id": item_id, "error": error}})

    def _away(self) -> None:
        self.is_away = not self.is_away
        if self.is_away:
            self.turn = None
            self.play({"engine": {"type": "EngineLost", "message": "lost"}})
        else:
            self.play({"engine": {"type": "EngineBack"}})

    def _park(self) -> None:
        if self.is_parked:
            self.is_parked = False
            self.play({"unpark": True})
        elif not self.is_away and self.player.machine.is_idle:
            self.is_parked, self.turn = True, None
            self.play({"park": True})

    def leave(self) -> None:
        """Hang up; what goes on then ends without a word to anybody."""
        self._take([{"asked": asdict(each) | {"type": "Decision"}} for each in self._left()])
        assert not self.player.machine._calls.is_any_open

    def _left(self) -> list[Decision]:
        return self.player.machine.left()

    def check(self) -> None:
        """Check that every call has ended once, or was dropped by a client."""
        for item_id in self.begun:
            was_dropped = "dropped" in self.decisions[item_id]
            assert self.ends[item_id] == (0 if was_dropped else 1), item_id
        assert set(self.ends) <= self.begun
        assert all(number == 1 for number in self.answers.values()), self.answers
        for decisions in self.decisions.values():
            begun = [what for what in decisions if what in ("approval requested", "called")]
            final = [what for what in decisions if what not in begun]
            assert (len(begun), len(final)) == (1, 1), decisions
            assert decisions[0] == begun[0], "nothing ends before it begins"


@settings(max_examples=120, deadline=None)
@given(_OPS, st.booleans())
def test_each_call_has_one_end(ops: list[tuple[str, int]], waits: bool) -> None:
    """Then everything is let come to its end."""
    course = Course(waits=waits)
    for op, which in ops:
        course.do(op, which)
    if course.is_parked:
        course.do("park", 0)
    course.do("done", 0)
    for item_id in [*course.running]:
        course._outcome("return", item_id)
    course.now_s += 1_000.0
    course.play({"clock_s": course.now_s})
    course.check()
    asked_and_there = [each for each in course.asked if "dropped" not in course.decisions[each]]
    assert all(course.answers[each] == 1 for each in asked_and_there)


@settings(max_examples=60, deadline=None)
@given(_OPS)
def test_a_session_can_end_in_the_middle_of_calls(ops: list[tuple[str, int]]) -> None:
    """What a server still carries out is given up, and has its end."""
    course = Course(waits=False)
    for op, which in ops:
        course.do(op, which)
    course._take(course.player.end())
    course.leave()
    course.check()


@settings(max_examples=60, deadline=None)
@given(_OPS, st.booleans())
def test_a_client_can_leave_in_the_middle_of_calls(ops: list[tuple[str, int]], waits: bool) -> None:
    """Nobody is told any more, and the audit log has one end of each all the same."""
    course = Course(waits=waits)
    for op, which in ops:
        course.do(op, which)
    course.leave()
    course.leave()
    for decisions in course.decisions.values():
        final = [each for each in decisions if each not in ("approval requested", "called")]
        assert len(final) == 1, decisions
