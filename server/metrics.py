"""Show what gateway and engine count, in Prometheus' text format.

Everything is read when it is asked for, from the objects that count; nothing is registered
globally. Names follow Prometheus' conventions: base units, `_total` for what only grows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import Any, get_args, get_type_hints

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    UnknownMetricFamily,
)
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from model.metrics import EngineMetrics, Shown
from server.images.service import ImageCounts
from server.session.accounts import Account
from server.session.counts import Counts
from server.session.drain import Drain
from server.session.link import EngineLink

CONTENT_TYPE = CONTENT_TYPE_LATEST

_PREFIX = "parley"
_NOT_DECLARED = Shown("part", "A field that does not say what it is.")


class Metrics:
    """Write the metrics of one server.

    Args:
        counts: of the gateway.
        link: to the engine.
        drain: of the server.
        accounts: of its API keys.
        images: what came of pictures.
    """

    def __init__(
        self,
        counts: Counts,
        link: EngineLink,
        drain: Drain,
        accounts: Sequence[Account],
        images: ImageCounts,
    ) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Families(lambda: _gateway_families(counts, link, drain)))
        self._registry.register(_Families(lambda: shown_fields(images, _PREFIX)))
        self._registry.register(_Families(lambda: _engine_families(link)))
        self._registry.register(_Families(lambda: _key_families(accounts)))
        # In a registry of our own: two servers in one process, as in tests, do not share their
        # counters.
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """Return all metrics as they are now, in the format of `CONTENT_TYPE`."""
        return generate_latest(self._registry)


class _Families(Collector):
    """Pass on metrics that are made when they are asked for."""

    def __init__(self, make: Callable[[], Iterator[Metric]]) -> None:
        self._make = make

    def collect(self) -> Iterator[Metric]:
        """Make the metrics."""
        return self._make()

    def describe(self) -> Iterator[Metric]:
        """Describe nothing ahead: what there is depends on the engine."""
        return iter(())


def _gateway_families(counts: Counts, link: EngineLink, drain: Drain) -> Iterator[Metric]:
    yield from shown_fields(counts, _PREFIX)
    live = GaugeMetricFamily(f"{_PREFIX}_sessions", "Sessions that are open.")
    live.add_metric([], link.num_sessions)
    yield live
    draining = GaugeMetricFamily(
        f"{_PREFIX}_draining", "Whether the server is about to stop: 1 or 0."
    )
    draining.add_metric([], float(drain.is_begun))
    yield draining


def _key_families(accounts: Sequence[Account]) -> Iterator[Metric]:
    prefix = f"{_PREFIX}_key"
    live = GaugeMetricFamily(
        f"{prefix}_sessions", "Sessions that are open, by API key.", labels=["key"]
    )
    begun = CounterMetricFamily(
        f"{prefix}_sessions_begun", "Sessions that were let in, by API key.", labels=["key"]
    )
    seconds = CounterMetricFamily(
        f"{prefix}_session_seconds", "How long they lasted together, by API key.", labels=["key"]
    )
    refused = CounterMetricFamily(
        f"{prefix}_refused", "Sessions over the limits of an API key.", labels=["key"]
    )
    for account in accounts:
        live.add_metric([account.name], account.num_open)
        begun.add_metric([account.name], account.num_begun)
        seconds.add_metric([account.name], account.seconds)
        refused.add_metric([account.name], account.num_refused)
    yield from (live, begun, seconds, refused)


def _engine_families(link: EngineLink) -> Iterator[Metric]:
    prefix = f"{_PREFIX}_engine"
    metrics: EngineMetrics = link.metrics
    yield from shown_fields(metrics, prefix)
    up = GaugeMetricFamily(f"{prefix}_up", "Whether the engine can serve: 1 or 0.")
    up.add_metric([], float(link.is_running))
    yield up
    slots = GaugeMetricFamily(f"{prefix}_slots", "Sessions that may be open in the engine at once.")
    slots.add_metric([], link.info.max_sessions)
    yield slots
    losses = CounterMetricFamily(f"{prefix}_losses", "Times that the engine's process was lost.")
    losses.add_metric([], link.num_losses)
    yield losses
    restarts = CounterMetricFamily(
        f"{prefix}_restarts", "Times that a lost engine was started again."
    )
    restarts.add_metric([], link.num_restarts)
    yield restarts


def shown_fields(counted: Any, prefix: str) -> Iterator[Metric]:
    """Yield a metric for each field of a dataclass that counts.

    Args:
        counted: a dataclass whose fields are declared as in `model.metrics`. A number that
            is not declared is shown as well, without a type.
        prefix: of all names.
    """
    hints = get_type_hints(type(counted), include_extras=True)
    for field in fields(counted):
        value = getattr(counted, field.name)
        declared = [each for each in get_args(hints[field.name]) if isinstance(each, Shown)]
        shown = declared[0] if declared else _NOT_DECLARED
        name = f"{prefix}_{shown.name or field.name}"
        match shown.kind:
            case "histogram":
                sums = getattr(counted, shown.sum_field)
                if shown.label:
                    yield _histogram(name, shown, value, sums)
                else:
                    yield _histogram(name, shown, {"": value}, {"": sums})
            case "counter":
                yield _labelled(CounterMetricFamily, name, shown, value)
            case "gauge":
                yield _labelled(GaugeMetricFamily, name, shown, value)
            case _ if shown is _NOT_DECLARED and isinstance(value, int | float):
                yield UnknownMetricFamily(name, shown.help, value)
            case _:
                pass


def _labelled(
    family: type[CounterMetricFamily] | type[GaugeMetricFamily],
    name: str,
    shown: Shown,
    value: Any,
) -> Metric:
    if not shown.label:
        return family(name, shown.help, value)
    metric = family(name, shown.help, labels=[shown.label])
    for key, number in sorted(dict(value).items()):  # a copy: others may be counting
        metric.add_metric([key], number)
    return metric


def _histogram(
    name: str, shown: Shown, counts: dict[str, list[int]], totals: dict[str, float]
) -> Metric:
    """Return a histogram, one for each key if it has a label."""
    metric = HistogramMetricFamily(name, shown.help, labels=[shown.label] if shown.label else [])
    for key, counted in sorted(counts.items()):
        buckets, reached = [], 0
        for bound, count in zip([*map(str, shown.bounds), "+Inf"], counted, strict=True):
            # Prometheus wants cumulative buckets: of 3, 5 and 2 in turn it is told 3, 8 and 10.
            # Source: Prometheus documentation, "Exposition formats".
            reached += count
            buckets.append((bound, float(reached)))
        metric.add_metric([key] if shown.label else [], buckets=buckets, sum_value=totals[key])
    return metric
