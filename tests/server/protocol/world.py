"""Play what a client may send, and what engine and ears may do; watch the rules hold."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from model.messages import AppendAudio, Cancel, Close, CommitAudio, Open, Recite, Reopen, Respond
from server.protocol.memory.replay import replayed
from tests.server.protocol.engine_memory import EngineMemory
from tests.server.protocol.transcripts import Player, written_command

Line = dict[str, Any]

# Every code that the API documents, and ours for what this server cannot do.
DOCUMENTED = {
    None,
    "array_above_max_length",
    "cannot_update_voice",
    "conversation_already_has_active_response",
    "decimal_above_max_value",
    "decimal_below_min_value",
    "input_audio_buffer_commit_empty",
    "integer_above_max_value",
    "integer_below_min_value",
    "invalid_approval_request_id",
    "invalid_event",
    "invalid_function_parameters",
    "invalid_tool_call_id",
    "invalid_type",
    "invalid_value",
    "item_create_duplicate_item_id",
    "item_create_invalid_previous_item_id",
    "item_delete_invalid_item_id",
    "item_retrieve_invalid_item_id",
    "item_truncate_invalid_item_id",
    "missing_required_parameter",
    "object_above_max_properties",
    "response_cancel_not_active",
    "string_above_max_length",
    "unknown_parameter",
    "unsupported_content_type",
    "unsupported_parameter",
}


_MAX_LOSSES = 3  # one after the other
# What happens to a session whose client is away, and that has no slot.
_WITHOUT_A_CLIENT = (
    *("park", "later", "listed", "unlisted", "returned", "passed", "masked", "refused"),
    *("answer", "answer call", "answer server call", "answer cut", "answered", "no answer"),
)


@dataclass
class EngineReply:
    """A response that the engine is making."""

    session_id: str
    turn: int
    num_texts: int = 0
    num_words: int = 0  # of the texts, that were spoken
    num_frames: int = 0
    num_calls: int = 0
    is_calling: bool = False
    tools: list[str] = field(default_factory=list)  # that it offers
    recital: list[str] | None = None  # words that it was given and has not said
    is_whole: bool = False  # whether these were all

    def output(self, kind: str, **values: Any) -> Line:
        """Write an output of it."""
        return {
            "engine": {"type": kind, "session_id": self.session_id, "turn": self.turn, **values}
        }


@dataclass
class Seen:
    """What a client has seen of one response."""

    is_in_band: bool
    items: list[Line] = field(default_factory=list)  # by output index, newest version
    open_items: set[str] = field(default_factory=set)
    open_parts: set[str] = field(default_factory=set)
    deltas: dict[str, str] = field(default_factory=lambda: defaultdict(str))
    is_done: bool = False


class World:
    """Play a client's lines and legal happenings to a machine, and check what comes out.

    Args:
        delegate: what a text model answers beside the engine's; None for nothing.
        is_filtered: whether words and calls are checked: nobody is told of them before that.
        sentence: what is said in the place of what a check has refused.
        max_items: that the conversation may have.
    """

    def __init__(
        self,
        delegate: Line | None = None,
        *,
        is_filtered: bool = False,
        sentence: str = "",
        max_items: int = 2_000,
    ) -> None:
        plan = {"hears": True, "says": True, "calls": True, "sentence": sentence}
        filters = plan if is_filtered else None
        self.player = Player(delegate=delegate, filters=filters, max_items=max_items)
        self.replies: list[EngineReply] = []  # that the engine has not ended
        self.over: list[EngineReply] = []  # that were taken from it
        self.commits: list[str] = []  # whose transcripts are due
        self.seen: dict[str, Seen] = {}
        self.order: list[str] = []  # of the conversation's items
        self.in_progress: set[str] = set()
        self.memory = EngineMemory()
        self._heard_ms = 0
        self._is_voice = False
        self._is_paused = False
        self._num_losses = 0
        self._is_full = False
        self._is_away = False
        self._is_parked = False
        self._to_refuse: list[str] = []
        self._event_ids: set[str] = set()
        self._known: set[str] = set()  # items that the client has heard of
        self._asked: list[Line] = []  # of MCP servers and the text model, and not answered
        self._dropped: list[str] = []  # questions that were given up
        self.to_check: list[Line] = []  # and not answered
        self._may_be_told: set[str] | None = set(sentence.split()) if is_filtered else None
        self._tell(self.player.start())

    def play(self, line: Line | str) -> None:
        """Play a client's line, or let something happen."""
        if self._is_parked and (isinstance(line, dict) or line not in _WITHOUT_A_CLIENT):
            return
        for played in [self._possible(line)] if isinstance(line, dict) else self._happenings(line):
            if "engine" in played and played["engine"].get("session_id", "sess_1") == "sess_1":
                self.memory.made(played["engine"])
            self._tell(self.player.play(played))
        while self._to_refuse:
            self._tell(self.player.play({"no_slot": self._to_refuse.pop()}))

    def end(self) -> None:
        """Let what is going on come to its end, and check that nothing is left open."""
        if self._is_away:
            self.play("park" if self._is_parked else "away")
        while self.replies or self.commits or self._asked or self.to_check:
            self.play("passed")
            self.play("done")
            self.play("transcript")
            self.play("listed")
            self.play("returned")
            self.play("answered")
        self._check_end()

    def end_early(self) -> None:
        """End the session in the middle of things, and check that nothing is left open."""
        self._tell(self.player.end())
        self._check_end()

    def _check_end(self) -> None:
        assert all(seen.is_done for seen in self.seen.values()), "every created has its done"
        assert not self.in_progress, "every added has its done"

    def _possible(self, line: Line) -> Line:
        """Return a line without an id that no client could know: here they only count."""
        frame = line["client"]
        item = frame.get("item") if isinstance(frame, dict) else None
        item_id = item.get("id") if isinstance(item, dict) else None
        if (
            not isinstance(item, dict)
            or not isinstance(item_id, str)
            or item_id in self._known
            or "_" not in item_id
        ):
            return line
        return {"client": {**frame, "item": {**item, "id": "b"}}}

    # What happens beside the client.

    def _happenings(self, kind: str) -> list[Line]:  # noqa: C901, PLR0911, PLR0912 - a case each
        match kind:
            case "audio":
                self._heard_ms += 100
                return [{"heard": {"audio_ms": 100}}]
            case "voice":
                return self._voice()
            case "pause":
                return self._pause()
            case "lost":
                return self._lost()
            case "full":
                self._is_full = not self._is_full
                return []
            case "later":
                return [{"clock_s": self._heard_ms / 50}]
            case "away":
                return self._away()
            case "park":
                return self._park()
            case "hearing" if not self._is_away:
                return [{"engine": {"type": "InputTranscriptDelta", "text": " hm"}}]
            case "transcript":
                if not self.commits:
                    return []
                item_id = self.commits.pop(0)
                return [{"engine": {"type": "InputTranscript", "item_id": item_id, "text": "hm"}}]
            case "listed" | "unlisted":
                return self._listed(kind)
            case "returned":
                return self._returned()
            case "passed" | "masked" | "refused" if self.to_check:
                # The newest first: verdicts come in any order.
                return [{"verdict": self._verdict(kind, self.to_check.pop())}]
            case "answer" | "answer call" | "answer server call" | "answer cut":
                return self._answer(kind)
            case "answered" | "no answer":
                return self._answered(kind)
            case "stale":
                for ask_id in self._dropped:
                    late = {"type": "AnswerText", "ask_id": ask_id, "text": "late"}
                    assert not self.player.play({"answer": late}), "what is dropped says nothing"
                for reply in self.over:
                    for line in (reply.output("ResponseAudio", audio_ms=80), _call(reply)):
                        assert not self.player.play(line), "what is over says nothing"
                return []
            case _:
                return self._made(kind, self.replies[0]) if self.replies else []

    def _verdict(self, kind: str, asked: Line) -> Line:
        """Answer a question: with the words, with masks where there can be some, or without."""
        words = asked["text"][asked["start"] :]
        if kind == "masked" and asked["direction"] in ("heard", "written"):
            words = "".join(char if char == " " else "*" for char in words)
        if kind != "refused" and self._may_be_told is not None:
            self._may_be_told |= set(words.split())
        return {"key": asked["key"], "words": None if kind == "refused" else words}

    def _listed(self, kind: str) -> list[Line]:
        """Answer the oldest listing."""
        asked = next((each for each in self._asked if each["type"] == "ListTools"), None)
        if asked is None:
            return []
        self._asked.remove(asked)
        outcome: Line = {"type": "ListingFailed", "item_id": asked["item_id"]}
        if kind == "listed":
            tools = [{"name": "look", "input_schema": {"type": "object"}}]
            return [{"tool": {**outcome, "type": "ToolsListed", "tools": tools}}]
        error = {"kind": "http_error", "message": "no", "code": 500}
        return [{"tool": {**outcome, "error": error}}]

    def _returned(self) -> list[Line]:
        """Answer the newest call, and then say so again, which changes nothing."""
        asked = [each for each in self._asked if each["type"] == "CallTool"]
        if not asked:
            return []
        self._asked.remove(asked[-1])
        outcome = {"type": "ToolReturned", "item_id": asked[-1]["item_id"], "output": "seen"}
        return [{"tool": outcome}, {"tool": outcome}]

    def _answer(self, kind: str) -> list[Line]:
        """Let the text model go on with its newest answer."""
        asked = [each for each in self._asked if each["type"] == "AskModel"]
        if not asked:
            return []
        question = asked[-1]
        made: Line = {"ask_id": question["ask_id"]}
        if kind == "answer":
            return [{"answer": {**made, "type": "AnswerText", "text": " said so"}}]
        if kind == "answer cut":
            self._asked.remove(question)
            return [{"answer": {**made, "type": "AnswerDone", "is_cut": True}}]
        name = "look" if kind == "answer server call" else "get_time"
        if name not in question["tools"]:
            return []
        return [{"answer": {**made, "type": "AnswerCall", "name": name, "arguments": "{}"}}]

    def _answered(self, kind: str) -> list[Line]:
        """End the text model's oldest answer."""
        asked = next((each for each in self._asked if each["type"] == "AskModel"), None)
        if asked is None:
            return []
        self._asked.remove(asked)
        if kind == "no answer":
            failed = {"type": "AnswerFailed", "ask_id": asked["ask_id"], "message": "no"}
            return [{"answer": failed}]
        done = {"type": "AnswerDone", "ask_id": asked["ask_id"], "output_tokens": 2}
        return [{"answer": done}]

    def _voice(self) -> list[Line]:
        """Begin or end speech, as the ears do: never without detection, and again after a reset."""
        if self.player.machine.config.turn_detection is None:
            self._is_voice = self._is_paused = False
            return []
        self._is_voice = not self._is_voice
        self._is_paused = False
        if self._is_voice:
            return [{"heard": {"began_ms": max(0, self._heard_ms - 300)}}]
        return [{"heard": {"ended_ms": self._heard_ms}}]

    def _pause(self) -> list[Line]:
        """Pause in speech, or go on after a pause."""
        if not self._is_voice or self.player.machine.config.turn_detection is None:
            return []
        self._is_paused = not self._is_paused
        return [{"heard": {"paused" if self._is_paused else "resumed": True}}]

    def _away(self) -> list[Line]:
        """Lose the engine, or have it back."""
        self._is_away = not self._is_away
        if not self._is_away:
            return [{"engine": {"type": "EngineBack"}}]
        for session_id in {reply.session_id for reply in self.replies}:
            self._take_away(session_id)
        self.commits.clear()
        return [{"engine": {"type": "EngineLost", "message": "lost"}}]

    def _park(self) -> list[Line]:
        """Let the client go, and its session give its slot back; or let it return."""
        if self._is_parked:
            self._is_parked = self._is_away = False
            return [{"unpark": True}]
        if self._is_away or not self.player.machine.is_idle:
            return []
        self._is_parked = self._is_away = True
        # An early reply that nobody has been told of is no reason to stay.
        self._take_away("sess_1")
        self.commits.clear()
        return [{"park": True}]

    def _lost(self) -> list[Line]:
        """Lose the conversation's session in the engine, no more often than it is put up with."""
        if self._is_away:
            return []
        self._num_losses += 1
        if self._num_losses > _MAX_LOSSES:
            return []
        self._take_away("sess_1")
        self.commits.clear()
        return [{"engine": {"type": "SessionFailed", "message": "lost"}}]

    def _made(self, kind: str, reply: EngineReply) -> list[Line]:  # noqa: C901, PLR0911, PLR0912 - a case each
        """Go on with a reply: words and sound, then calls, then its end."""
        if reply.recital is not None:
            return self._recited(kind, reply, reply.recital)
        match kind:
            case "other":
                self.replies.append(self.replies.pop(0))
                return []
            case "started":
                usage = {"input_text_tokens": 2}
                return [reply.output("ResponseStarted", usage=usage)]
            case "text" if not reply.num_calls:
                reply.num_texts += 1
                return [reply.output("ResponseText", text=f" w{reply.num_texts}")]
            case "unable" if not reply.num_texts and not reply.num_calls:
                return [*self._made("text", reply), *self._made("text", reply)]
            case "speech" if not reply.num_calls:
                sound = reply.output("ResponseAudio", audio_ms=80)
                start_ms, reply.num_frames = reply.num_frames * 80, reply.num_frames + 1
                if reply.num_words == reply.num_texts:
                    return [sound]
                reply.num_words += 1
                word = f"w{reply.num_words}"
                return [reply.output("ResponseWord", text=word, start_ms=start_ms), sound]
            case "call" | "server call" if not reply.is_calling:
                line = _call(reply, "look" if kind == "server call" else "get_time")
                if kind == "server call" and "look" not in reply.tools:
                    return []
                reply.is_calling, reply.num_calls = True, reply.num_calls + 1
                return [line]
            case "arguments" if reply.is_calling:
                return [reply.output("CallArguments", call=reply.num_calls - 1, text='{"a":1}')]
            case "called" if reply.is_calling:
                reply.is_calling = False
                return [reply.output("CallDone", call=reply.num_calls - 1)]
            case "done" | "limit":
                self.replies.remove(reply)
                ended = [reply.output("CallDone", call=reply.num_calls - 1)]
                reason = "completed" if kind == "done" else "max_output_tokens"
                usage = {"output_text_tokens": 1, "input_audio_tokens": 3}
                done = reply.output("ResponseDone", reason=reason, usage=usage)
                return [*(ended if reply.is_calling and kind == "done" else []), done]
            case "failed":
                self.replies.remove(reply)
                if "/" in reply.session_id:
                    failed = {"type": "SessionFailed", "session_id": reply.session_id}
                    return [{"engine": {**failed, "message": "lost"}}]
                return [reply.output("ResponseFailed", message="nothing came of it")]
            case _:
                return []

    def _recited(self, kind: str, reply: EngineReply, words: list[str]) -> list[Line]:
        """Go on with a reply whose words come from elsewhere; it has no calls."""
        if kind == "text":
            if not words:
                return []
            reply.num_texts += 1
            return [reply.output("ResponseText", text=f" {words.pop(0)}")]
        if kind == "done":
            if not reply.is_whole:
                return []
            said = [reply.output("ResponseText", text=f" {word}") for word in words]
            self.replies.remove(reply)
            usage = {"output_text_tokens": len(words)}
            return [*said, reply.output("ResponseDone", reason="completed", usage=usage)]
        if kind in ("call", "server call", "arguments", "called"):
            return []
        recital, reply.recital = reply.recital, None
        lines = self._made(kind, reply)
        reply.recital = recital
        return lines

    # What comes out.

    def _tell(self, lines: list[Line]) -> None:
        for line in lines:
            if "command" in line:
                assert not self._is_away, "nobody is told what nobody would remember"
                self._watch_command(line["command"])
            elif "to_check" in line:
                self.to_check.append(line["to_check"])
            elif "asked" in line:
                self._watch_asked(line["asked"])
            else:
                self._watch(line["server"])

    def _watch_command(self, command: Line) -> None:  # noqa: C901 - a case each
        session_id = command.get("session_id", "sess_1")
        if session_id == "sess_1":
            if command["type"] == Respond.__name__ and not (self.commits or self.to_check):
                assert self.memory.words == self._remembered(), "the engine knows what was said"
            self.memory.told(command)
        match command["type"]:
            case Open.__name__ if self._is_full and "/" in session_id:
                self._to_refuse.append(session_id)
            case Respond.__name__ if session_id not in self._to_refuse:
                tools = command.get("tools", [])
                recital: list[str] | None = [] if command.get("recites") else None
                reply = EngineReply(session_id, command["turn"], tools=tools, recital=recital)
                self.replies.append(reply)
            case Recite.__name__:
                self._recite(session_id, command)
            case Cancel.__name__:
                self._take_away(session_id, command["turn"])
            case CommitAudio.__name__ if session_id == "sess_1":
                self.commits.append(command["item_id"])
            case Reopen.__name__:
                if command["item_id"] in self.commits:
                    self.commits.remove(command["item_id"])
                self._take_away(session_id)
            case Close.__name__ if "/" in session_id:
                self._take_away(session_id)
            case Close.__name__:
                own = [reply for reply in self.replies if reply.session_id == session_id]
                assert not own, "the engine does not start over under a response"
                assert not self.commits, "nor while a transcript is due"
            case AppendAudio.__name__:
                assert command["audio_ms"] > 0, "nothing is no audio"
            case _:
                pass

    def _recite(self, session_id: str, command: Line) -> None:
        place = session_id, command["turn"]
        for reply in self.replies:
            if (reply.session_id, reply.turn) == place:
                assert reply.recital is not None, "who makes words of its own is given none"
                assert not reply.is_whole, "nothing comes after the last words"
                reply.recital += command["text"].split()
                reply.is_whole = command.get("is_last", False)

    def _watch_asked(self, asked: Line) -> None:
        match asked["type"]:
            case "ListTools" | "CallTool" | "AskModel":
                self._asked.append(asked)
            case "DropAsk":
                kept = [e for e in self._asked if e.get("ask_id") != asked["ask_id"]]
                assert len(kept) < len(self._asked), "what is dropped was going on"
                self._asked = kept
                self._dropped.append(asked["ask_id"])
            case "DropTool":
                self._asked = [e for e in self._asked if e.get("item_id") != asked["item_id"]]

    def _remembered(self) -> list[str]:
        """Return what the engine should remember of each item, as a client would tell it."""
        conversation = self.player.machine._state.conversation
        told = EngineMemory()
        for item in conversation.retold:
            for command in replayed("sess_1", item):
                told.told(written_command(command))
        return told.words

    def _take_away(self, session_id: str, turn: int | None = None) -> None:
        for reply in [r for r in self.replies if r.session_id == session_id]:
            if turn in (None, reply.turn):
                self.replies.remove(reply)
                self.over.append(reply)

    def _watch(self, event: Line) -> None:
        assert event["event_id"] not in self._event_ids, "event ids are unique"
        self._event_ids.add(event["event_id"])
        self._known.add(event.get("item_id") or event.get("item", {}).get("id"))
        kind = event["type"]
        if kind == "error":
            kind, code = event["error"]["type"], event["error"]["code"]
            if kind == "server_error":
                assert code == "engine_failed", event
                return
            assert code in DOCUMENTED, event
            assert kind == "invalid_request_error", event
        elif kind in ("input_audio_buffer.committed", "input_audio_buffer.cleared"):
            # The ears begin anew after a commit or clear by hand; after their own it is so anyway.
            self._is_voice = self._is_paused = False
        elif kind.startswith("conversation.item."):
            self._watch_conversation(kind, event)
        elif kind in ("response.created", "response.done"):
            self._watch_response(kind, event["response"])
        elif kind.startswith(("response.mcp_call.", "mcp_list_tools.")):
            assert event["item_id"] in self.in_progress, "what goes on is told of"
        elif kind.startswith("response."):
            seen = self.seen[event["response_id"]]
            assert not seen.is_done, "nothing after done"
            self._watch_output(seen, kind.removeprefix("response."), event)

    def _watch_conversation(self, kind: str, event: Line) -> None:
        match kind.removeprefix("conversation.item."):
            case "added":
                item_id, previous_id = event["item"]["id"], event["previous_item_id"]
                assert item_id not in self.order, "an item is added once"
                if event["item"].get("status") == "in_progress":
                    (seen,) = [each for each in self.seen.values() if item_id in each.open_items]
                    assert seen.is_in_band, "what is out of band is nowhere else"
                place = 0 if previous_id is None else self.order.index(previous_id) + 1
                self.order.insert(place, item_id)
                self.in_progress.add(item_id)
            case "done":
                item_id = event["item"]["id"]
                place = self.order.index(item_id)
                previous_id = self.order[place - 1] if place else None
                assert event["previous_item_id"] == previous_id, "items stay where they were put"
                self.in_progress.remove(item_id)
            case "deleted":
                self.order.remove(event["item_id"])
                if event["item_id"].startswith("mcp"):
                    self.in_progress.discard(event["item_id"])  # it is given up
                assert event["item_id"] not in self.in_progress, "what goes on is ended first"
            case "retrieved":
                assert event["item"]["id"] in self.order, "what is retrieved is there"
            case "truncated":
                assert event["item_id"] in self.order, "what is truncated is there"
            case _:
                pass

    def _watch_response(self, kind: str, response: Line) -> None:
        if kind == "response.created":
            assert response["id"] not in self.seen, "a response is created once"
            is_in_band = response["conversation_id"] is not None
            others = [seen for seen in self.seen.values() if not seen.is_done and seen.is_in_band]
            assert not (is_in_band and others), "one at a time in the conversation"
            self.seen[response["id"]] = Seen(is_in_band)
            return
        seen = self.seen[response["id"]]
        assert not seen.is_done, "a response is done once"
        assert not seen.open_items, "every item added has its done"
        assert not seen.open_parts, "every part added has its done"
        assert response["output"] == seen.items, "the output is what was done, in order"
        assert (response["status"] == "completed") == (response["status_details"] is None)
        if response["status"] == "completed":
            assert all(item.get("status", "completed") == "completed" for item in seen.items)
        seen.is_done = True

    def _watch_output(self, seen: Seen, kind: str, event: Line) -> None:  # noqa: C901 - a case each
        item = event.get("item")
        if kind == "output_item.added":
            assert item is not None
            assert event["output_index"] == len(seen.items), "indices count up"
            assert _is_in_progress(item)
            assert not seen.open_items, "one item after the other"
            seen.items.append(item)
            seen.open_items.add(item["id"])
            return
        if kind == "output_item.done":
            assert item is not None
            assert item.get("status", "completed") in ("completed", "incomplete")
            assert item["id"] in self.order or not seen.is_in_band, "it is in the conversation"
            assert item["id"] == seen.items[event["output_index"]]["id"]
            seen.open_items.remove(item["id"])
            seen.items[event["output_index"]] = item
            return
        assert event["item_id"] in seen.open_items, "what is said belongs to an open item"
        place = seen.items[event["output_index"]]
        assert place["id"] == event["item_id"], "ids and indices agree"
        if "call_id" in event:
            assert event["call_id"] == place["call_id"]
        match kind:
            case "content_part.added":
                seen.open_parts.add(event["item_id"])
            case "content_part.done":
                seen.open_parts.remove(event["item_id"])
            case "mcp_call_arguments.delta":
                seen.deltas[event["item_id"]] += event["delta"]
            case "mcp_call_arguments.done":
                assert event["arguments"] == seen.deltas[event["item_id"]]
            case "function_call_arguments.delta":
                seen.deltas[event["item_id"]] += event["delta"]
            case "function_call_arguments.done":
                assert event["arguments"] == seen.deltas[event["item_id"]]
                assert event["name"] == place["name"]
            case "output_text.delta" | "output_audio_transcript.delta":
                assert event["item_id"] in seen.open_parts
                if self._may_be_told is not None:
                    assert self._may_be_told.issuperset(event["delta"].split()), "words are checked"
                seen.deltas[event["item_id"]] += event["delta"]
            case "output_text.done":
                assert event["text"] == seen.deltas[event["item_id"]]
            case "output_audio_transcript.done":
                assert event["transcript"] == seen.deltas[event["item_id"]]
            case _:
                assert event["item_id"] in seen.open_parts, "audio belongs to an open part"


def _call(reply: EngineReply, name: str = "get_time") -> Line:
    return reply.output("CallStarted", call=reply.num_calls, name=name)


def _is_in_progress(item: Line) -> bool:
    """Say whether an item goes on; those about servers do not say so themselves."""
    return item.get("status", "in_progress") == "in_progress"
