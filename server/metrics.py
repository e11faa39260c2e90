"""Show what gateway and engine count, in Prometheus' text format.

Everything is read when it is asked for, from the objects that count; nothing is registered
globally. Names follow Prometheus' conventions: base units, `_total` for what only grows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
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

from model.metrics import Shown
from server.delegate.counts import DelegateCounts
from server.filters.counts import FilterCounts
from server.images.service import ImageCounts
from server.session.accounts import Account
from server.session.counts import Counts
from server.session.drain import Drain
from server.session.pool import EnginePool
from server.session.usage import TOKEN_FIELDS, UsageBook

CONTENT_TYPE = CONTENT_TYPE_LATEST

_PREFIX = "parley"
_NOT_DECLARED = Shown("part", "A field that does not say what it is.")


class Metrics:
    """Write the metrics of one server.

    Args:
        counts: of the gateway.
        pools: the engines of each model, by its name.
        drain: of the server.
        accounts: of its API keys.
        usage: what was used.
        filters: what checks of words did.
        asked: of the text model.
        images: what came of pictures.
    """

    def __init__(
        self,
        counts: Counts,
        pools: Mapping[str, EnginePool],
        drain: Drain,
        accounts: Sequence[Account],
        usage: UsageBook,
        filters: FilterCounts,
        asked: DelegateCounts,
        images: ImageCounts,
    ) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Families(lambda: _gateway_families(counts, pools, drain)))
        self._registry.register(_Families(lambda: shown_fields([({}, images)], _PREFIX)))
        self._registry.register(_Families(lambda: _engine_families(pools)))
        self._registry.register(_Families(lambda: _key_families(accounts)))
        self._registry.register(_Families(lambda: _usage_families(usage)))
        self._registry.register(
            _Families(lambda: shown_fields([({}, filters)], f"{_PREFIX}_filter"))
        )
        self._registry.register(
            _Families(lambda: shown_fields([({}, asked)], f"{_PREFIX}_delegate"))
        )
        # In a registry of our own: two servers in one process, as in tests, do not share their
        # counters.
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """Return all metrics as they are now, in the format of `CONTENT_TYPE`."""
        return generate_latest(self._registry)


class _Shown(Collector):
    """Pass on the fields of counts that are shown."""

    def __init__(self, counted: Any, prefix: str) -> None:  # Any: a dataclass with shown fields
        self._counted, self._prefix = counted, prefix

    def collect(self) -> Iterator[Metric]:
        """Make the metrics."""
        return shown_fields([({}, self._counted)], self._prefix)

    def describe(self) -> Iterator[Metric]:
        """Describe nothing ahead, as below."""
        return iter(())


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


def _gateway_families(
    counts: Counts, pools: Mapping[str, EnginePool], drain: Drain
) -> Iterator[Metric]:
    yield from shown_fields([({}, counts)], _PREFIX)
    live = GaugeMetricFamily(f"{_PREFIX}_sessions", "Sessions that are open.")
    live.add_metric([], sum(pool.num_sessions for pool in pools.values()))
    yield live
    sessions = GaugeMetricFamily(
        f"{_PREFIX}_model_sessions", "Sessions that are open, by model.", labels=["model"]
    )
    slots = GaugeMetricFamily(
        f"{_PREFIX}_model_slots", "Sessions that may be open with a model.", labels=["model"]
    )
    moves = CounterMetricFamily(
        f"{_PREFIX}_session_moves",
        "Sessions that went to another engine of their model, since theirs was lost.",
        labels=["model"],
    )
    for name, pool in pools.items():
        sessions.add_metric([name], pool.num_sessions)
        slots.add_metric([name], pool.max_sessions)
        moves.add_metric([name], pool.num_moves)
    yield from (sessions, slots, moves)
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


def _usage_families(usage: UsageBook) -> Iterator[Metric]:
    prefix, payer = f"{_PREFIX}_usage", ["key", "model"]
    sessions = CounterMetricFamily(f"{prefix}_sessions", "Sessions that began.", labels=payer)
    seconds = CounterMetricFamily(
        f"{prefix}_session_seconds", "How long they lasted together.", labels=payer
    )
    responses = CounterMetricFamily(
        f"{prefix}_responses", "Responses that ended, whatever way.", labels=payer
    )
    sound = CounterMetricFamily(
        f"{prefix}_audio_seconds",
        "Sound that users sent (in), and that was made for them (out).",
        labels=[*payer, "direction"],
    )
    tokens = CounterMetricFamily(
        f"{prefix}_tokens",
        "Tokens of responses. Cached ones are among those of the input as well.",
        labels=[*payer, "kind"],
    )
    for who, used in sorted(usage.totals.items(), key=lambda item: (item[0].key, item[0].model)):
        own = [who.key, who.model]
        sessions.add_metric(own, used.sessions)
        seconds.add_metric(own, used.seconds)
        responses.add_metric(own, used.responses)
        sound.add_metric([*own, "in"], used.audio_in_seconds)
        sound.add_metric([*own, "out"], used.audio_out_seconds)
        for name in TOKEN_FIELDS:
            tokens.add_metric([*own, name.removesuffix("_tokens")], getattr(used, name))
    failures = CounterMetricFamily(
        f"{prefix}_ledger_failures", "Times that the ledger of use could not be written."
    )
    failures.add_metric([], usage.num_failures)
    waiting = GaugeMetricFamily(
        f"{prefix}_ledger_waiting", "Lines that are not in the ledger of use yet."
    )
    waiting.add_metric([], usage.num_waiting)
    yield from (sessions, seconds, responses, sound, tokens, failures, waiting)


def _engine_families(pools: Mapping[str, EnginePool]) -> Iterator[Metric]:
    prefix = f"{_PREFIX}_engine"
    every = [
        ({"model": name, "engine": str(number)}, link)
        for name, pool in pools.items()
        for number, link in enumerate(pool.links)
    ]
    yield from shown_fields([(labels, link.metrics) for labels, link in every], prefix)
    names = ["model", "engine"]
    up = GaugeMetricFamily(f"{prefix}_up", "Whether the engine can serve: 1 or 0.", labels=names)
    slots = GaugeMetricFamily(
        f"{prefix}_slots", "Sessions that may be open in the engine at once.", labels=names
    )
    losses = CounterMetricFamily(
        f"{prefix}_losses", "Times that the engine's process was lost.", labels=names
    )
    restarts = CounterMetricFamily(
        f"{prefix}_restarts", "Times that a lost engine was started again.", labels=names
    )
    for labels, link in every:
        values = [*labels.values()]
        up.add_metric(values, float(link.is_running))
        slots.add_metric(values, link.info.max_sessions)
        losses.add_metric(values, link.num_losses)
        restarts.add_metric(values, link.num_restarts)
    yield from (up, slots, losses, restarts)


def shown_fields(counted: Sequence[tuple[Mapping[str, str], Any]], prefix: str) -> Iterator[Metric]:
    """Yield a metric for each field of dataclasses that count.

    Args:
        counted: labels and values of each: the same labels, and dataclasses of the same type, whose
            fields are declared as in `model.metrics`. A number that is not declared is shown as
            well, without a type.
        prefix: of all names.
    """
    kind = type(counted[0][1])
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        declared = [each for each in get_args(hints[field.name]) if isinstance(each, Shown)]
        shown = declared[0] if declared else _NOT_DECLARED
        family = _family(f"{prefix}_{shown.name or field.name}", shown, [*counted[0][0]])
        for labels, each in counted:
            value, own = getattr(each, field.name), [*labels.values()]
            if isinstance(family, HistogramMetricFamily):
                sums = getattr(each, shown.sum_field)
                # With a label the field is a dictionary, one entry per value of it. Without, it is
                # one value.
                kinds = sorted(dict(value).items()) if shown.label else [("", value)]
                for key, counts in kinds:
                    labelled = [*own, key] if shown.label else own
                    total = sums[key] if shown.label else sums
                    family.add_metric(labelled, _buckets(shown, counts), total)
            elif family is not None and shown.label:
                for key, number in sorted(dict(value).items()):  # a copy: others may be counting
                    family.add_metric([*own, key], number)
            elif family is not None and isinstance(value, int | float):
                family.add_metric(own, value)
        # What is no number has no samples, and is not shown.
        if family is not None and (family.samples or shown.label):
            yield family


def _family(
    name: str, shown: Shown, labels: list[str]
) -> CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily | UnknownMetricFamily | None:
    """Return a metric without values; None for a field that is shown with another."""
    if shown.label:
        labels = [*labels, shown.label]
    match shown.kind:
        case "histogram":
            return HistogramMetricFamily(name, shown.help, labels=labels)
        case "counter" | "gauge":
            family = CounterMetricFamily if shown.kind == "counter" else GaugeMetricFamily
            return family(name, shown.help, labels=labels)
        case _:
            return (
                UnknownMetricFamily(name, shown.help, labels=labels)
                if shown is _NOT_DECLARED
                else None
            )


def _buckets(shown: Shown, counts: list[int]) -> list[tuple[str, float]]:
    buckets, reached = [], 0
    for bound, count in zip([*map(str, shown.bounds), "+Inf"], counts, strict=True):
        # Prometheus wants cumulative buckets: of 3, 5 and 2 in turn it is told 3, 8 and 10. Source:
        # Prometheus documentation, "Exposition formats".
        reached += count
        buckets.append((bound, float(reached)))
    return buckets
