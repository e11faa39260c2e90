"""The spans of a session are those of its turns, responses and calls, and say where time went."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from model.messages import Usage
from server.audio.silero import SileroModel
from server.config.records import TelemetrySettings
from server.protocol.items.items import FunctionCall, FunctionCallOutput, Message, TextPart
from server.protocol.items.mcp import McpCall
from server.protocol.response import Response
from server.protocol.server_events import (
    ErrorEvent,
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
from server.protocol.settings.request import session_request
from server.session.counts import Counts
from server.session.stopwatch import TurnParts
from server.session.witness import Witness
from server.telemetry.tracing import Tracing
from tests.fakes.clock import FakeTime
from tests.server.session.live import living

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
CONFIG = SessionConfig("sess_1", "echo", "alloy", 0)


@pytest.fixture(scope="module")
def vad_model() -> SileroModel:
    """Load the voice detector once."""
    return SileroModel()


class Traced:
    """A session's spans, and what has come out of them."""

    def __init__(self, config: SessionConfig = CONFIG, **headers: str) -> None:
        self.exporter = InMemorySpanExporter()
        self.clock = FakeTime()
        self._tracing = Tracing(
            TelemetrySettings(traces=True), Counts(), "1", self.exporter, self.now
        )
        self.spans = self._tracing.session(config, "starter", headers)

    def now(self) -> float:
        """Return the time."""
        return self.clock.now_s

    def sent(self, *events: ServerEvent, after_s: float = 0.0) -> None:
        """Let time pass, then see events."""
        self.clock.now_s += after_s
        for event in events:
            self.spans.sent(event, "event_1", self.now())

    def ended(self) -> dict[str, ReadableSpan]:
        """End the session; returns its spans by name, the last of each."""
        return {span.name: span for span in self.all()}

    def all(self) -> Sequence[ReadableSpan]:
        """End the session; returns its spans in the order in which they ended."""
        self.spans.ended("client", self.now())
        self._tracing.close()
        return self.exporter.get_finished_spans()


def response(number: int = 1, status: str = "in_progress", **details: object) -> Response:
    """Make a response of the conversation."""
    made = Response(f"resp_{number}", "conv_1", session_request(CONFIG), **details)  # type: ignore[arg-type]  # whatever a test asks for
    object.__setattr__(made, "status", status)
    return made


def said(span: ReadableSpan) -> Mapping[str, Any]:
    """Return the attributes of a span."""
    return span.attributes or {}


def seconds(span: ReadableSpan) -> float:
    """Return how long a span lasted."""
    assert span.start_time is not None
    assert span.end_time is not None
    return round((span.end_time - span.start_time) / 1e9, 3)


def test_a_turn_holds_its_response_and_the_session_its_turns() -> None:
    """With the parent of the request, times, parts and tokens."""
    traced = Traced(traceparent=PARENT)
    traced.sent(SessionCreated(CONFIG))
    traced.sent(SpeechStarted(0, "item_1"), after_s=1.0)
    traced.sent(SpeechStopped(2000, "item_1"), ResponseCreated(response()), after_s=2.0)
    traced.clock.now_s += 0.25
    parts = TurnParts(0.04, 0.5, 0.1, 0.15)
    traced.spans.begun("resp_1", parts, traced.now())
    usage = Usage(input_text_tokens=9, output_text_tokens=3, output_audio_tokens=20)
    traced.sent(ResponseDone(response(1, "completed", usage=usage)), after_s=1.5)
    spans = traced.ended()
    session, turn, reply = spans["realtime session"], spans["turn"], spans["response"]
    assert turn.parent == session.get_span_context()
    assert reply.parent == turn.get_span_context()
    assert session.parent is not None
    assert f"{session.parent.span_id:016x}" == "00f067aa0ba902b7"
    assert f"{session.context.trace_id:032x}" == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert (seconds(session), seconds(turn), seconds(reply)) == (4.75, 3.75, 1.75)
    latencies = {
        "parley.latency.network_ms": 40.0,
        "parley.latency.end_of_turn_ms": 500.0,
        "parley.latency.first_step_ms": 100.0,
        "parley.latency.first_audio_ms": 150.0,
    }
    for span in (turn, reply):
        assert latencies.items() <= said(span).items()
    assert said(reply)["gen_ai.usage.output_tokens"] == 23
    assert [event.name for event in turn.events] == ["speech started", "speech stopped"]
    assert said(session)["parley.turns"] == 1


def test_a_header_that_is_no_traceparent_begins_a_trace_of_its_own() -> None:
    """W3C Trace Context, section 3.2: what cannot be read is ignored."""
    spans = Traced(traceparent="zz-what-is-this").ended()
    assert spans["realtime session"].parent is None


def test_a_session_is_named_as_its_client_does() -> None:
    """By `session.tracing`, of which so much is kept."""
    traced = Traced()
    metadata = {"customer": "a" * 600, "tries": 3}
    tracing: Mapping[str, object] = {
        "workflow_name": "bookings",
        "group_id": "thread_7",
        "metadata": metadata,
    }
    traced.sent(SessionUpdated(SessionConfig("sess_1", "echo", "alloy", 0, tracing=tracing)))
    session = traced.ended()["bookings"]
    assert said(session)["gen_ai.conversation.id"] == "thread_7"
    assert said(session)["gen_ai.request.model"] == "echo"
    assert said(session)["gen_ai.response.model"] == "starter"
    assert said(session)["parley.workflow_name"] == "bookings"
    assert said(session)["parley.metadata.customer"] == "a" * 512
    assert said(session)["parley.metadata.tries"] == "3"


def test_a_response_that_failed_says_why() -> None:
    """On its span, and as an event of the session."""
    traced = Traced()
    error = {"type": "server_error", "code": "engine_failed", "message": "gone"}
    details = {"type": "failed", "error": error}
    traced.sent(ResponseCreated(response()))
    traced.sent(
        ErrorEvent("server_error", "engine_failed", "gone", None, None),
        ResponseDone(response(1, "failed", status_details=details)),
    )
    spans = traced.ended()
    assert not spans["response"].status.is_ok
    assert said(spans["response"])["error.type"] == "engine_failed"
    assert [event.name for event in spans["realtime session"].events] == ["error"]


def test_a_call_lasts_from_its_arguments_to_its_output_and_its_turn_until_it_is_told() -> None:
    """The response that follows the output belongs to the same turn."""
    traced = Traced()
    call = FunctionCall("item_2", "completed", "call_1", "get_weather", "{}")
    output = FunctionCallOutput("item_3", "call_1", "get_weather", "rain")
    traced.sent(
        ItemAdded(None, Message("item_1", "user", "completed", (TextPart("input_text", "?"),)))
    )
    traced.sent(ResponseCreated(response()), OutputItemDone("resp_1", 0, call))
    traced.sent(ResponseDone(response(1, "completed")), after_s=0.5)
    traced.sent(ItemAdded("item_2", output), after_s=3.0)
    traced.sent(ResponseCreated(response(2)))
    traced.sent(ResponseDone(response(2, "completed")), after_s=1.0)
    spans = traced.all()
    by_name = {span.name: span for span in spans}
    tool, turn = by_name["execute_tool get_weather"], by_name["turn"]
    assert [span.name for span in spans].count("turn") == 1
    assert tool.parent == turn.get_span_context()
    assert (seconds(tool), seconds(turn)) == (3.5, 4.5)
    assert said(tool)["gen_ai.tool.call.id"] == "call_1"


@pytest.mark.parametrize("is_failed", [False, True])
def test_a_tool_of_a_server_is_a_call_too(is_failed: bool) -> None:
    """Whether it returns something or fails."""
    traced = Traced()
    traced.sent(ResponseCreated(response()))
    traced.sent(ItemAdded(None, McpCall("mcp_1", "shop", "search", "shop_search", "{}")))
    done = McpCallFailed(0, "mcp_1") if is_failed else McpCallCompleted(0, "mcp_1")
    traced.sent(done, after_s=2.0)
    span = traced.ended()["execute_tool search"]
    assert seconds(span) == 2.0
    assert said(span)["gen_ai.tool.type"] == "extension"
    assert ("error.type" in said(span)) is is_failed


def test_speech_over_a_reply_is_the_next_turn() -> None:
    """The one before ends with its response."""
    traced = Traced()
    traced.sent(SpeechStarted(0, "item_1"), ResponseCreated(response()))
    traced.sent(SpeechStarted(4000, "item_2"), after_s=1.0)
    traced.sent(ResponseDone(response(1, "cancelled", status_details={"reason": "turn_detected"})))
    traced.sent(ResponseCreated(response(2)), after_s=1.0)
    traced.sent(ResponseDone(response(2, "completed")), after_s=1.0)
    spans = [span for span in traced.all() if span.name in ("turn", "response")]
    turns = [span for span in spans if span.name == "turn"]
    assert [said(span)["parley.turn"] for span in turns] == [1, 2]
    assert [seconds(span) for span in turns] == [1.0, 2.0]
    assert said(spans[0])["gen_ai.response.finish_reasons"] == ("turn_detected",)


def test_what_is_open_at_the_end_of_a_session_is_ended() -> None:
    """No span is lost because a client hung up."""
    traced = Traced()
    call = FunctionCall("item_2", "completed", "call_1", "f", "{}")
    traced.sent(ResponseCreated(response()), OutputItemDone("resp_1", 0, call))
    names = sorted(span.name for span in traced.all())
    assert names == ["execute_tool f", "realtime session", "response", "turn"]


def test_calls_that_nobody_answers_are_bounded() -> None:
    """The oldest is ended for a newer one."""
    traced = Traced()
    traced.sent(ResponseCreated(response()))
    for number in range(200):
        call = FunctionCall("item", "completed", f"call_{number}", "f", "{}")
        traced.sent(OutputItemDone("resp_1", 0, call))
    assert len(traced.spans._calls) == 128
    assert len(traced.all()) == 203


async def test_a_live_session_is_traced_and_says_its_parts(vad_model: SileroModel) -> None:
    """In spans, in metadata and in the counts."""
    exporter = InMemorySpanExporter()
    tracing = Tracing(TelemetrySettings(traces=True), Counts(), "1", exporter)
    counts = Counts()

    def witnesses(config: SessionConfig) -> list[Witness]:
        return [tracing.session(config, "starter", {})]

    async with living(vad_model, counts=counts, witnesses=witnesses, tells_parts=True) as live:
        live.transport.round_trip_s = 0.04
        live.send(
            type="session.update",
            session={"type": "realtime", "tracing": {"workflow_name": "a talk"}},
        )
        live.say("hello")
        done = await live.until("response.done")
        live.transport.disconnect()
    metadata = done["response"]["metadata"]
    assert metadata.keys() == {
        "parley_network_ms",
        "parley_first_step_ms",
        "parley_first_audio_ms",
    }
    assert metadata["parley_network_ms"] == "40.0"
    tracing.close()
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert spans.keys() == {"a talk", "turn", "response"}
    assert said(spans["turn"])["parley.latency.network_ms"] == 40.0
    assert counts.turn_part_buckets.keys() == {"network", "first_step", "first_audio"}


async def test_metadata_of_clients_stays(vad_model: SileroModel) -> None:
    """There are sixteen places, and theirs come first."""
    async with living(vad_model, tells_parts=True) as live:
        for number, kept in ((2, True), (15, False)):
            own = {f"key_{n}": "1" for n in range(number)}
            live.send(
                type="response.create",
                response={"metadata": own, "output_modalities": ["text"]},
            )
            metadata = (await live.until("response.done"))["response"]["metadata"]
            assert own.items() <= metadata.items()
            assert ("parley_first_audio_ms" in metadata) is kept
        live.transport.disconnect()
