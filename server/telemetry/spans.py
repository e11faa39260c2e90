"""Make the spans of one session: the session, its turns, their responses, and their tool calls.

    session                                   from the first event to the last
      turn                                    from the user's first sound to the end of what follows
        response                              from its announcement to its end
        execute_tool NAME                     from the call's arguments to what it returned

Names and attributes are OpenTelemetry's semantic conventions for generative AI where they have one
(`gen_ai.*`), else `parley.*`. No words of users or models are in a span.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from server.protocol.items.items import FunctionCall, FunctionCallOutput, Message
from server.protocol.items.mcp import McpCall
from server.protocol.response import Response
from server.protocol.server_events import (
    ErrorEvent,
    InputAudioBufferCommitted,
    ItemAdded,
    McpCallCompleted,
    McpCallFailed,
    OutputItemDone,
    ResponseCreated,
    ResponseDone,
    ServerEvent,
    SessionCreated,
    SessionUpdated,
    SpeechStarted,
    SpeechStopped,
)
from server.protocol.settings.config import SessionConfig
from server.session.stopwatch import TurnParts
from server.session.witness import Witness

# What clients name of their own: so much of it becomes attributes.
_MAX_METADATA, _MAX_CHARS = 32, 512
# Calls whose outputs never come; the oldest is ended for a newer one.
_MAX_CALLS = 128


# A turn has no event of its own. It begins with whatever comes first: speech, a commit by hand, a
# typed message, or a response that was asked for without any. It ends when nothing of it is going
# on any more. An example, with a function:
#
#     speech_started        the turn begins
#     response.created      its first response, r1
#     a call in r1          its span is open until its output comes, also after r1 has ended
#     response.done         r1 ends; the turn goes on, since a call is open
#     the call's output     the call ends; now a response has to follow, so the turn goes on
#     response.created      r2
#     response.done         r2 ends, and nothing is left: so does the turn
@dataclass(slots=True, eq=False)
class _Turn:
    span: Span
    context: Context
    responses: set[str] = field(default_factory=set)  # in progress
    calls: set[str] = field(default_factory=set)  # the same, by item
    is_answered: bool = False
    awaits_reply: bool = False  # a call has ended, and a response is to follow
    last_s: float = 0.0


class SessionSpans(Witness):
    """Trace one session.

    Args:
        tracer: makes spans.
        config: what the session begins with.
        model: that it has, by the model's own name.
        parent: of the session's span, from the request that it came by.
        now_s: on the session's clock.
    """

    def __init__(
        self, tracer: Tracer, config: SessionConfig, model: str, parent: Context, now_s: float
    ) -> None:
        self._tracer = tracer
        self._wall_ns = time.time_ns() - int(now_s * 1e9)
        self._session = tracer.start_span(
            "realtime session",
            parent,
            SpanKind.SERVER,
            {
                "session.id": config.id,
                "gen_ai.provider.name": "parley",
                "gen_ai.response.model": model,
            },
            start_time=self._ns(now_s),
        )
        self._context = trace.set_span_in_context(self._session)
        self._turn: _Turn | None = None
        self._turns: dict[str, _Turn] = {}  # of responses in progress
        self._responses: dict[str, Span] = {}
        self._calls: dict[str, tuple[Span, _Turn]] = {}  # by the call's own id, or its item's
        self._num_turns = 0
        self._describe(config)

    @property
    def trace_id(self) -> str:
        """Return the id of the trace, in hexadecimal."""
        return trace.format_trace_id(self._session.get_span_context().trace_id)

    def sent(self, event: ServerEvent, event_id: str, now_s: float) -> None:  # noqa: C901 - a case each
        """Follow what clients are told."""
        del event_id
        match event:
            case SessionCreated() | SessionUpdated():
                self._describe(event.session)
            case SpeechStarted():
                self._began(now_s).span.add_event("speech started", timestamp=self._ns(now_s))
            case SpeechStopped():
                self._current(now_s).span.add_event("speech stopped", timestamp=self._ns(now_s))
            case InputAudioBufferCommitted():
                self._current(now_s)
            case ItemAdded(item=FunctionCallOutput() as output):
                self._call_ended(output.call_id, now_s)
            case ItemAdded(item=Message(role="user")):
                self._current(now_s)
            case ResponseCreated():
                self._response_begun(event.response, now_s)
            case OutputItemDone(response_id=response_id, item=FunctionCall() as function):
                self._call_begun(function.call_id, function, response_id, now_s)
            case ItemAdded(item=McpCall() as call):
                self._call_begun(call.id, call, "", now_s)
            case McpCallCompleted():
                self._call_ended(event.item_id, now_s)
            case McpCallFailed():
                self._call_ended(event.item_id, now_s, error="the tool failed")
            case ResponseDone():
                self._response_ended(event.response, now_s)
            case ErrorEvent(kind="server_error"):
                self._session.add_event(
                    "error", {"error.type": event.code or event.kind}, self._ns(now_s)
                )
            case _:
                pass

    def begun(self, response_id: str, parts: TurnParts, now_s: float) -> None:
        """Note what the first audio or text of a response took."""
        del now_s
        span = self._responses.get(response_id)
        if span is None:
            return
        turn = self._turns[response_id]
        for name, seconds in parts.known.items():
            span.set_attribute(f"parley.latency.{name}_ms", round(seconds * 1000, 3))
            if not turn.is_answered:
                turn.span.set_attribute(f"parley.latency.{name}_ms", round(seconds * 1000, 3))
        turn.is_answered = True

    def ended(self, why: str, now_s: float) -> None:
        """End everything that is open."""
        for call_id in [*self._calls]:
            self._call_ended(call_id, now_s, error="the session ended")
        for span in self._responses.values():
            span.end(self._ns(now_s))
        self._responses.clear()
        for turn in {
            id(turn): turn for turn in (*self._turns.values(), self._turn) if turn
        }.values():
            turn.span.end(self._ns(turn.last_s))
        self._turns.clear()
        self._turn = None
        self._session.set_attribute("parley.turns", self._num_turns)
        self._session.set_attribute("parley.close", why)
        self._session.end(self._ns(now_s))

    # The session.

    def _describe(self, config: SessionConfig) -> None:
        """Name the session as its client does, which may do so by any update."""
        # Source: Realtime API reference, session, tracing: workflow_name, group_id and metadata.
        given = config.tracing if isinstance(config.tracing, Mapping) else {}
        workflow = str(given.get("workflow_name") or "")[:_MAX_CHARS]
        group = str(given.get("group_id") or "")[:_MAX_CHARS]
        self._session.update_name(workflow or "realtime session")
        self._session.set_attribute("gen_ai.request.model", config.model)
        self._session.set_attribute("gen_ai.conversation.id", group or config.id)
        if workflow:
            self._session.set_attribute("parley.workflow_name", workflow)
        metadata = given.get("metadata")
        for key, value in [*(metadata or {}).items()][:_MAX_METADATA]:
            self._session.set_attribute(
                f"parley.metadata.{key[:_MAX_CHARS]}", str(value)[:_MAX_CHARS]
            )

    # Turns.

    def _began(self, now_s: float) -> _Turn:
        """Begin a turn, or go on with one that nobody has answered yet."""
        turn = self._turn
        if turn is not None and not turn.is_answered and not turn.responses:
            return self._touched(turn, now_s)
        if turn is not None and not turn.responses and not turn.calls:
            turn.span.end(self._ns(turn.last_s))
        self._num_turns += 1
        span = self._tracer.start_span(
            "turn",
            self._context,
            attributes={"parley.turn": self._num_turns},
            start_time=self._ns(now_s),
        )
        self._turn = _Turn(span, trace.set_span_in_context(span), last_s=now_s)
        return self._turn

    def _current(self, now_s: float) -> _Turn:
        """Return the turn that an item of the user belongs to."""
        turn = self._turn
        return (
            self._began(now_s) if turn is None or turn.is_answered else self._touched(turn, now_s)
        )

    def _touched(self, turn: _Turn, now_s: float) -> _Turn:
        turn.last_s = now_s
        return turn

    def _settle(self, turn: _Turn, now_s: float) -> None:
        """End a turn of which nothing is in progress."""
        turn.last_s = now_s
        is_over = not turn.responses and not turn.calls and not turn.awaits_reply
        if is_over or (turn is not self._turn and not turn.responses and not turn.calls):
            turn.span.end(self._ns(now_s))
            if turn is self._turn:
                self._turn = None

    # Responses.

    def _response_begun(self, response: Response, now_s: float) -> None:
        turn = self._turn or self._began(now_s)
        turn.awaits_reply = False
        request = response.request
        self._turns[response.id] = turn
        self._responses[response.id] = self._tracer.start_span(
            "response",
            turn.context,
            attributes={
                "gen_ai.operation.name": "chat",
                "gen_ai.response.id": response.id,
                "gen_ai.output.type": "speech" if request.modality == "audio" else "text",
                "parley.voice": request.voice,
                "parley.out_of_band": response.conversation_id is None,
            },
            start_time=self._ns(now_s),
        )
        turn.responses.add(response.id)
        turn.last_s = now_s

    def _response_ended(self, response: Response, now_s: float) -> None:
        span = self._responses.pop(response.id, None)
        turn = self._turns.pop(response.id, None)
        if span is None or turn is None:
            return
        span.set_attribute("parley.status", response.status)
        details = response.status_details or {}
        if "reason" in details:
            span.set_attribute("gen_ai.response.finish_reasons", [str(details["reason"])])
        usage = response.usage
        if usage is not None:
            span.set_attribute("gen_ai.usage.input_tokens", usage.input_tokens)
            span.set_attribute("gen_ai.usage.output_tokens", usage.output_tokens)
            span.set_attribute("gen_ai.usage.cache_read.input_tokens", usage.input_cached_tokens)
        if response.status == "failed":
            code = str(details.get("error", {}).get("code", "failed"))
            span.set_attribute("error.type", code)
            span.set_status(Status(StatusCode.ERROR, code))
        span.end(self._ns(now_s))
        turn.responses.discard(response.id)
        self._settle(turn, now_s)

    # Calls.

    def _call_begun(
        self, call_id: str, call: FunctionCall | McpCall, response_id: str, now_s: float
    ) -> None:
        if len(self._calls) >= _MAX_CALLS:
            self._call_ended(next(iter(self._calls)), now_s, error="nobody answered")
        turn = self._turns.get(response_id) or self._turn or self._began(now_s)
        span = self._tracer.start_span(
            f"execute_tool {call.name}",
            turn.context,
            SpanKind.CLIENT,
            {
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": call.name,
                "gen_ai.tool.call.id": call_id,
                "gen_ai.tool.type": "extension" if isinstance(call, McpCall) else "function",
            },
            start_time=self._ns(now_s),
        )
        self._calls[call_id] = span, turn
        turn.calls.add(call_id)

    def _call_ended(self, call_id: str, now_s: float, error: str = "") -> None:
        known = self._calls.pop(call_id, None)
        if known is None:
            return
        span, turn = known
        if error:
            span.set_status(Status(StatusCode.ERROR, error))
            span.set_attribute("error.type", error)
        span.end(self._ns(now_s))
        turn.calls.discard(call_id)
        turn.awaits_reply = True
        self._settle(turn, now_s)

    def _ns(self, now_s: float) -> int:
        return self._wall_ns + int(now_s * 1e9)
