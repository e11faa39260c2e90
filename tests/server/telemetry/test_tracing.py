"""Spans reach a collector by OTLP over HTTP, and one that hangs holds up nobody."""

import os
import subprocess
import sys
import threading
from collections.abc import Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from server.config.records import TelemetrySettings
from server.config.settings import Settings
from server.names import ROOT
from server.protocol.settings.config import SessionConfig
from server.session.counts import Counts
from server.telemetry.tracing import Tracing
from tests.server.client.realtime import talked
from tests.server.fakes import EchoEngine
from tests.server.serving import serving
from tests.server.telemetry.collector import collecting

CONFIG = SessionConfig("sess_1", "echo", "alloy", 0)


def test_a_collector_gets_spans_with_the_resource_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And the headers of the settings."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "front-desk")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    with collecting() as collector:
        settings = TelemetrySettings(
            traces=True, endpoint=collector.url, headers={"x-team": "voice"}
        )
        counts = Counts()
        tracing = Tracing(settings, counts, "1.2.3")
        tracing.session(CONFIG, "starter", {}).ended("client", 1.0)
        tracing.close()
        request, headers = collector.requests.get(timeout=20)
    resource = {a.key: a.value.string_value for a in request.resource_spans[0].resource.attributes}
    assert resource["service.name"] == "front-desk"
    assert resource["service.version"] == "1.2.3"
    assert resource["deployment.environment.name"] == "test"
    assert headers["x-team"] == "voice"
    spans = request.resource_spans[0].scope_spans[0].spans
    assert [span.name for span in spans] == ["realtime session"]
    assert (counts.spans_dropped, counts.spans_failed) == (0, 0)


class Held(SpanExporter):
    """Hang until it may go on, and refuse what it then gets."""

    def __init__(self) -> None:
        self.has_begun = threading.Event()
        self.may_go_on = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Hang."""
        del spans
        self.has_begun.set()
        self.may_go_on.wait(60)
        return SpanExportResult.FAILURE


def test_spans_that_a_hanging_collector_does_not_take_are_dropped_and_counted() -> None:
    """The memory is bounded, and nobody waits."""
    exporter, counts = Held(), Counts()
    tracing = Tracing(TelemetrySettings(traces=True, max_queue=16), counts, "1", exporter)
    for _ in range(50):
        tracing.session(CONFIG, "starter", {}).ended("client", 1.0)
    # Those that are on their way count as waiting: the bound is of all that is held.
    assert counts.spans_dropped == 34
    assert exporter.has_begun.wait(20)
    exporter.may_go_on.set()
    tracing.close()
    for thread in threading.enumerate():
        if thread.name == "traces":  # where this machine is slower than `close` waits
            thread.join(60)
    assert counts.spans_failed == 16
    assert not [t for t in threading.enumerate() if t.name.startswith("Otel")]


def test_nothing_of_a_trace_that_is_not_sampled_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not sent, so it takes no place."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    exporter, counts = Held(), Counts()
    tracing = Tracing(TelemetrySettings(traces=True, max_queue=16), counts, "1", exporter)
    for _ in range(50):
        tracing.session(CONFIG, "starter", {}).ended("client", 1.0)
    tracing.close()
    assert counts.spans_dropped == 0
    assert not exporter.has_begun.is_set()


async def test_a_call_goes_on_while_the_collector_hangs() -> None:
    """A real server, a real receiver that does not answer."""
    with collecting() as collector:
        collector.may_answer.clear()
        telemetry = TelemetrySettings(traces=True, endpoint=collector.url, max_queue=16)
        async with serving(EchoEngine(), Settings(telemetry=telemetry)) as served:
            parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
            for _ in range(12):
                assert await talked(served.url, traceparent=parent) == "completed"
            text = (await served.get("/metrics"))[1]
        dropped = [line for line in text.splitlines() if line.startswith("parley_spans_dropped")]
        assert float(dropped[0].split()[1]) > 0
        collector.may_answer.set()
        request, _ = collector.requests.get(timeout=20)
    spans = request.resource_spans[0].scope_spans[0].spans
    assert {span.trace_id.hex() for span in spans} == {"4bf92f3577b34da6a3ce929d0e0e4736"}
    assert {span.name for span in spans} == {"realtime session", "turn", "response"}


def test_the_packages_are_not_loaded_where_no_traces_are_wanted() -> None:
    """They take memory and time."""
    code = (
        "import sys, server.app; from server.config.settings import Settings\n"
        "from tests.server.fakes import EchoEngine\n"
        "server.app.create_app(Settings(), {'starter': [EchoEngine()]})\n"
        "assert 'opentelemetry.sdk' not in sys.modules\n"
        "assert 'opentelemetry.exporter' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=ROOT)
