"""Send the spans of all sessions to a collector, without anybody waiting for it.

What has ended goes into a bounded queue. A thread of OpenTelemetry's SDK takes it from there and
sends it by OTLP over HTTP; while a collector hangs, spans are dropped and counted, and the calls do
not notice.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import (
    SERVICE_NAME,
    SERVICE_VERSION,
    OTELResourceDetector,
    Resource,
)
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from server.config.records import TelemetrySettings
from server.protocol.settings.config import SessionConfig
from server.session.counts import Counts
from server.telemetry.spans import SessionSpans

_log = structlog.get_logger("telemetry")

_CLOSE_TIMEOUT_S = 3.0
_BATCH = 512
_SERVICE = "parley"


class Tracing:
    """Trace sessions.

    Args:
        settings: where spans go, and how many may wait.
        counts: of the gateway, for what is dropped.
        version: of the server.
        exporter: takes the spans; None for OTLP over HTTP, as the settings and the `OTEL_*`
            variables of the environment say.
        clock: of the sessions.
    """

    def __init__(
        self,
        settings: TelemetrySettings,
        counts: Counts,
        version: str,
        exporter: SpanExporter | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        made = exporter or OTLPSpanExporter(
            endpoint=settings.endpoint, headers=dict(settings.headers) or None
        )
        self._gate = _Gate(made, settings.max_queue, counts)
        # What the environment says (`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`) comes last,
        # and stands.
        resource = Resource({SERVICE_NAME: _SERVICE, SERVICE_VERSION: version}).merge(
            OTELResourceDetector().detect()
        )
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(self._gate)
        self._tracer = self._provider.get_tracer("parley", version)

    def session(
        self, config: SessionConfig, model: str, headers: Mapping[str, str]
    ) -> SessionSpans:
        """Begin the trace of a session.

        Args:
            config: what it begins with.
            model: that it has, by the model's own name.
            headers: of the request that it came by; `traceparent` names what it is part of.
        """
        # Source: W3C Trace Context, section 3. A header that cannot be read counts as none.
        parent: Context = TraceContextTextMapPropagator().extract(
            {key: headers[key] for key in ("traceparent", "tracestate") if key in headers}
        )
        return SessionSpans(self._tracer, config, model, parent, self._clock())

    def close(self) -> None:
        """Send what waits, for at most three seconds; what a collector does not take is lost."""
        # The SDK would wait for its exporter, which may hang.
        closing = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        closing.start()
        closing.join(_CLOSE_TIMEOUT_S)
        if closing.is_alive():
            _log.warning("traces lost", spans=self._gate.num_waiting)


class _Gate(SpanProcessor):
    """Bound the spans that wait, and count those that are dropped.

    The SDK's own queue drops silently. No more spans are let in here than it holds, so it drops
    none.
    """

    def __init__(self, exporter: SpanExporter, max_waiting: int, counts: Counts) -> None:
        self._counts = counts
        self._max_waiting = max_waiting
        self._lock = threading.Lock()
        self.num_waiting = 0
        self._batches = BatchSpanProcessor(
            _Counting(exporter, self._left),
            max_queue_size=max_waiting,
            max_export_batch_size=min(_BATCH, max_waiting),
        )

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Do nothing: a span is sent when it has ended."""

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span, unless too many wait."""
        if span.context is None or not span.context.trace_flags.sampled:
            return
        with self._lock:
            if self.num_waiting >= self._max_waiting:
                self._counts.spans_dropped += 1
                return
            self.num_waiting += 1
        self._batches.on_end(span)

    def shutdown(self) -> None:
        """Send what waits."""
        self._batches.shutdown()  # type: ignore[no-untyped-call]  # as the SDK has it

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what waits now."""
        return self._batches.force_flush(timeout_millis)

    def _left(self, num_spans: int, *, is_taken: bool) -> None:
        with self._lock:
            self.num_waiting -= num_spans
            self._counts.spans_failed += 0 if is_taken else num_spans


class _Counting(SpanExporter):
    """Tell how many spans an exporter was given, and whether they were taken."""

    def __init__(self, exporter: SpanExporter, left: Callable[..., None]) -> None:
        self._exporter = exporter
        self._left = left

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Pass spans on."""
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            self._left(len(spans), is_taken=result is SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        """Let the exporter go."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the exporter."""
        return self._exporter.force_flush(timeout_millis)
