"""Follow every call from the response that made it to its one end.

The call of a client's function ends with the client's output, that of an MCP tool with the server's
result. A call that needs a person's yes may also end with a no, or when nobody answers. In whatever
order these come, each call ends once. What comes after its end is refused, or changes nothing.

Calls outlive their responses. The user may speak, and the model answer, while they go on.
"""

from dataclasses import dataclass, replace

from server.errors import ClientError
from server.protocol.events import Reaction
from server.protocol.items.item_parse import parse_approval
from server.protocol.items.items import FunctionCall, FunctionCallOutput, Item
from server.protocol.items.mcp import (
    McpApprovalRequest,
    McpApprovalResponse,
    McpCall,
    McpError,
    McpReturned,
)
from server.protocol.mcp.outcomes import (
    CallTool,
    Decision,
    DropTool,
    ToolFailed,
    ToolReturned,
    What,
)
from server.protocol.mcp.toolbox import OfferedTool
from server.protocol.memory.feed import Feed
from server.protocol.server_events import (
    ItemAdded,
    ItemDone,
    McpCallCompleted,
    McpCallFailed,
    McpCallInProgress,
)
from server.protocol.settings.mcp import McpTool
from server.protocol.state import SessionState
from server.protocol.wire.client_events import ItemCreate

# What the Agents SDKs return in a person's name who said no, in Python and in JavaScript.
_SDK_REJECTION = "Tool execution was not approved."
# Calls that timed out are remembered, to refuse what comes too late; of so many, the newest.
_MAX_TIMED_OUT = 256


@dataclass(frozen=True, slots=True)
class _Asked:
    """A call that waits for a person."""

    request: McpApprovalRequest
    offered: OfferedTool
    deadline_s: float


@dataclass(slots=True)
class _Running:
    """A call that a server carries out.

    Attributes:
        output_index: of its item, in the response that made it.
        response_id: of that response, until it is done; None afterwards.
        outcome: came before the response was done, and waits for that.
    """

    call: McpCall
    output_index: int = 0
    response_id: str | None = None
    outcome: ToolReturned | ToolFailed | None = None


@dataclass(frozen=True, slots=True)
class _Awaited:
    """A function call whose output the client owes.

    Attributes:
        deadline_s: when that is too late; None for never.
        is_held: whether it needs a person's yes.
    """

    call: FunctionCall
    deadline_s: float | None
    is_held: bool


class Calls:
    """Hold the calls of a session's conversation that have not ended.

    Args:
        state: of the session.
        feed: leads to the engine's memory of the conversation.
    """

    def __init__(self, state: SessionState, feed: Feed) -> None:
        self._state = state
        self._feed = feed
        self._asked: dict[str, _Asked] = {}  # by the request's item
        self._running: dict[str, _Running] = {}  # by the call's item
        self._awaited: dict[str, _Awaited] = {}  # by `call_id`
        self._timed_out: dict[str, None] = {}  # `call_id`s

    @property
    def is_any_open(self) -> bool:
        """Say whether a call has not ended."""
        return bool(self._asked or self._running or self._awaited)

    @property
    def deadline_s(self) -> float | None:
        """Return when a call has been waited for long enough; None if none is waited for so."""
        if not (self._asked or self._awaited):
            return None  # nearly always
        deadlines = [asked.deadline_s for asked in self._asked.values()]
        deadlines += [a.deadline_s for a in self._awaited.values() if a.deadline_s is not None]
        return min(deadlines, default=None)

    # Beginnings, by responses.

    def needs_approval(self, offered: OfferedTool, arguments: str) -> bool:
        """Say whether a call needs a person's yes: the client wants it so, or the operator."""
        tool, label = offered.tool, offered.server.label
        if offered.server.needs_approval(tool.name, is_read_only=tool.is_read_only):
            return True
        return self._state.policy.holds(tool.name, arguments, label, tool)

    def ask(self, request: McpApprovalRequest, offered: OfferedTool, now_s: float) -> Decision:
        """Hold a call until somebody answers a request to approve it."""
        deadline_s = now_s + self._state.policy.approval_timeout_s
        self._asked[request.id] = _Asked(request, offered, deadline_s)
        return _decision("approval requested", request)

    def begin(
        self, call: McpCall, server: McpTool, output_index: int, response_id: str
    ) -> list[Reaction]:
        """Let a server carry out a call that a response has made."""
        self._running[call.id] = _Running(call, output_index, response_id)
        return [
            CallTool(call.id, server, call.name, call.arguments),
            _decision("called", call),
        ]

    def wait(self, call: FunctionCall, now_s: float) -> list[Reaction]:
        """Wait for the output of a function that a response has called."""
        policy = self._state.policy
        is_held = policy.holds(call.name, call.arguments)
        limits = [policy.output_timeout_s] if policy.output_timeout_s else []
        limits += [policy.approval_timeout_s] if is_held else []
        deadline_s = now_s + max(limits) if limits else None
        self._awaited[call.call_id] = _Awaited(call, deadline_s, is_held)
        return [_decision("approval requested", call)] if is_held else []

    def response_done(self, response_id: str) -> list[Reaction]:
        """Tell what ended while the response that made it was in progress."""
        made = [each for each in self._running.values() if each.response_id == response_id]
        reactions: list[Reaction] = []
        for running in made:
            running.response_id = None
            if running.outcome is not None:
                reactions += self._ended(running, running.outcome)
        return reactions

    # What people answer.

    def answer(self, event: ItemCreate, announced_id: str | None) -> list[Reaction]:
        """Take somebody's answer to a request for approval.

        Args:
            event: creates an item of type `mcp_approval_response`.
            announced_id: of an item that will be added later, if there is one.

        Raises:
            ClientError: nobody asked, it has been answered, or the item cannot be added.
        """
        state = self._state
        item = parse_approval(event.item, "item", state.ids, self._called)
        state.conversation.check_id(item.id, taken=announced_id)
        reactions = self._added(item, event.previous_item_id)
        asked = self._asked.pop(item.approval_request_id)
        if not item.is_approved:
            return [*reactions, _decision("denied", asked.request, item.reason)]
        request = asked.request
        call = McpCall(
            state.ids.new("mcp"),
            request.server_label,
            request.name,
            request.called,
            request.arguments,
            request.id,
        )
        self._running[call.id] = _Running(call)
        return [
            *reactions,
            _decision("approved", request, item.reason),
            ItemAdded(state.conversation.append(call), call),
            McpCallInProgress(0, call.id),
            CallTool(call.id, asked.offered.server, call.name, call.arguments),
            _decision("called", call),
        ]

    def _called(self, request_id: str) -> str | None:
        asked = self._asked.get(request_id)
        return None if asked is None else asked.request.called

    def _added(
        self, item: McpApprovalResponse | FunctionCallOutput, previous_item_id: str | None = None
    ) -> list[Reaction]:
        """Add an item that is complete, and tell the engine what it says."""
        previous_id = self._state.conversation.insert(item, previous_item_id)
        added: list[Reaction] = [ItemAdded(previous_id, item), ItemDone(previous_id, item)]
        if self._state.conversation.last_id != item.id:
            self._feed.outdate()
            return added
        return [*added, *self._feed.add(item)]

    # Ends.

    def check_output(self, item: Item) -> None:
        """Refuse the output of a function call that has been waited for long enough.

        Raises:
            ClientError: the model was told that it did not come.
        """
        if isinstance(item, FunctionCallOutput) and item.call_id in self._timed_out:
            raise ClientError(
                f"The output of tool call '{item.call_id}' came too late: the call has timed out.",
                code="tool_call_timed_out",
                param="item.call_id",
            )

    def output_added(self, item: Item) -> list[Reaction]:
        """Take note that a client has added an item, which may be what a function returned."""
        if not isinstance(item, FunctionCallOutput):
            return []
        awaited = self._awaited.pop(item.call_id, None)
        if awaited is None or not awaited.is_held:
            return []
        if item.output == _SDK_REJECTION:
            return [_decision("denied", awaited.call)]
        return [_decision("completed", awaited.call)]

    def outcome(self, outcome: ToolReturned | ToolFailed) -> list[Reaction]:
        """Take what came of a call; nothing follows if it was dropped.

        While the response goes on that made it, clients are not told: some ask for the next
        response as soon as they are.
        """
        running = self._running.get(outcome.item_id)
        if running is None:
            return []
        if running.response_id is not None:
            running.outcome = outcome
            return []
        return self._ended(running, outcome)

    def _ended(self, running: _Running, outcome: ToolReturned | ToolFailed) -> list[Reaction]:
        del self._running[running.call.id]
        place = running.output_index, running.call.id
        event: Reaction
        if isinstance(outcome, ToolReturned):
            call = replace(running.call, output=outcome.output)
            told, event = outcome.output, McpCallCompleted(*place)
            decision = _decision("completed", call)
        else:
            call = replace(running.call, error=outcome.error)
            told, event = f"The call failed. {outcome.error.message}", McpCallFailed(*place)
            decision = _decision("failed", call, outcome.error.message)
        conversation = self._state.conversation
        conversation.replace(call)
        returned = McpReturned(call.id, call.called, told)
        conversation.returned(returned)
        done = ItemDone(conversation.previous_id(call.id), call)
        return [event, done, *self._feed.add(returned), decision]

    def deleted(self, item: Item) -> list[Reaction]:
        """Give up the call that an item was about, which a client has deleted."""
        match item:
            case McpCall() if self._running.pop(item.id, None) is not None:
                return [DropTool(item.id), _decision("dropped", item)]
            case McpApprovalRequest() if self._asked.pop(item.id, None) is not None:
                return [_decision("dropped", item)]
            case FunctionCall():
                awaited = self._awaited.pop(item.call_id, None)
                is_held = awaited is not None and awaited.is_held
                return [_decision("dropped", item)] if is_held else []
            case _:
                return []

    def tick(self, now_s: float) -> list[Reaction]:
        """Wait no longer for what should have come by now, and tell the model so."""
        reactions: list[Reaction] = []
        for asked in [each for each in self._asked.values() if each.deadline_s <= now_s]:
            del self._asked[asked.request.id]
            reason = f"Nobody answered within {self._state.policy.approval_timeout_s:g} s."
            denied = McpApprovalResponse(
                self._state.ids.new("item"),
                asked.request.id,
                is_approved=False,
                reason=reason,
                called=asked.request.called,
            )
            decision = _decision("timed out", asked.request, reason)
            reactions += [*self._added(denied), decision]
        for awaited in [*self._awaited.values()]:
            if awaited.deadline_s is not None and awaited.deadline_s <= now_s:
                reactions += self._given_up(awaited)
        return reactions

    def _given_up(self, awaited: _Awaited) -> list[Reaction]:
        call = awaited.call
        del self._awaited[call.call_id]
        self._timed_out[call.call_id] = None
        if len(self._timed_out) > _MAX_TIMED_OUT:
            del self._timed_out[next(iter(self._timed_out))]
        told = "The call was not approved in time." if awaited.is_held else "The call timed out."
        output = FunctionCallOutput(self._state.ids.new("item"), call.call_id, call.name, told)
        decisions = [_decision("timed out", call)] if awaited.is_held else []
        return [*self._added(output), *decisions]

    def ended(self, message: str) -> list[Reaction]:
        """End everything, because the session ends."""
        reactions: list[Reaction] = []
        for running in [*self._running.values()]:
            failed = ToolFailed(running.call.id, McpError("protocol_error", message))
            reactions += [DropTool(running.call.id), *self._ended(running, failed)]
        return [*reactions, *self.left(message)]

    def left(self, reason: str) -> list[Decision]:
        """Say for the audit log how everything ends, because nobody is there any more.

        Args:
            reason: why nobody is.
        """
        # One place for all ends of a session, so that every call in the log has one, and only one:
        # what came of a call while its response went on has not been told to anybody yet.
        decisions = [_decision("dropped", asked.request, reason) for asked in self._asked.values()]
        for running in self._running.values():
            match running.outcome:
                case ToolReturned():
                    decisions.append(_decision("completed", running.call))
                case ToolFailed(error=error):
                    decisions.append(_decision("failed", running.call, error.message))
                case None:
                    decisions.append(_decision("dropped", running.call, reason))
        decisions += [
            _decision("dropped", awaited.call, reason)
            for awaited in self._awaited.values()
            if awaited.is_held
        ]
        for calls in (self._asked, self._running, self._awaited):
            calls.clear()
        return decisions


def _decision(
    what: What,
    about: McpCall | McpApprovalRequest | FunctionCall,
    reason: str | None = None,
) -> Decision:
    label = None if isinstance(about, FunctionCall) else about.server_label
    return Decision(what, about.id, label, about.name, about.arguments, reason)
