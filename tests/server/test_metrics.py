"""What is counted is shown, under the names that the documentation lists."""

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

from prometheus_client import generate_latest
from prometheus_client.core import CollectorRegistry

from model.metrics import PART, Shown, counter, counter_by, gauge, no_counts
from server.config.server import KeyLimits, ServerSettings
from server.config.settings import Settings
from server.delegate.counts import DelegateCounts
from server.filters.counts import FilterCounts
from server.images.service import ImageCounts
from server.metrics import Metrics, shown_fields
from server.session.accounts import Account
from server.session.counts import Counts
from server.session.drain import Drain
from server.session.pool import EnginePool
from server.session.usage import UsageBook
from tests.server.fakes import EchoEngine
from tests.server.serving import serving

DOCS = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


def _with_labels(counted: Any) -> Any:
    """Count one of each kind there is a dictionary for, so that its label is shown."""
    hints = get_type_hints(type(counted), include_extras=True)
    for each in fields(counted):
        if isinstance(getattr(counted, each.name), dict):
            shown = [s for s in get_args(hints[each.name]) if isinstance(s, Shown)]
            is_histogram = bool(shown) and shown[0].kind == "histogram"
            one = no_counts(shown[0].bounds) if is_histogram else 1
            setattr(counted, each.name, {"some": one})
    return counted


def _labels(name: str, text: str) -> str:
    """Return the labels of a metric as the documentation lists them."""
    sample = re.search(rf"^{name}(?:_bucket)?(?:{{(.*)}})? ", text, re.MULTILINE)
    assert sample is not None, name
    labels = [each for each in re.findall(r"(\w+)=", sample[1] or "") if each != "le"]
    # All metrics of engines have these two, as the documentation says once.
    common = ("model", "engine") if name.startswith("parley_engine_") else ()
    return ", ".join(f"`{label}`" for label in labels if label not in common)  # by the alphabet


def test_the_tables_of_the_documentation_are_what_is_served() -> None:
    """Every metric is listed with its type and label, and every listed one is served."""
    engine = EchoEngine()
    _with_labels(engine.metrics)
    accounts = [Account("shop", KeyLimits())]
    pools = {"starter": EnginePool([engine])}
    usage = UsageBook()
    usage.meter("shop", "starter").begin("sess_1")
    counts, filters = _with_labels(Counts()), _with_labels(FilterCounts())
    asked, images = _with_labels(DelegateCounts()), ImageCounts()
    metrics = Metrics(counts, pools, Drain(0), accounts, usage, filters, asked, images)
    text = metrics.text().decode()
    served = {
        (name, kind, _labels(name, text))
        for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)
    }
    row = r"^\| `(\w+)` \| (\w+)(?: by ([`\w, ]+))? \|"
    assert set(re.findall(row, DOCS.read_text(), re.MULTILINE)) == served
    assert all(f"# HELP {name} " in text for name, _, _ in served)


@dataclass
class Counted:
    """Count all kinds of things."""

    done: Annotated[int, counter("Things done.")] = 3
    here: Annotated[int, gauge("Things here.")] = 2
    kinds: Annotated[dict[str, int], counter_by("kind", "Kinds.")] = field(
        default_factory=lambda: {"b": 2, "a": 1}
    )
    spent: Annotated[float, PART] = 7.5
    buckets: Annotated[
        list[int],
        Shown("histogram", "Times.", name="wait_seconds", bounds=(1.0, 2.5), sum_field="spent"),
    ] = field(default_factory=lambda: [1, 2, 3])
    spent_by_kind: Annotated[dict[str, float], PART] = field(default_factory=lambda: {"a": 0.5})
    buckets_by_kind: Annotated[
        dict[str, list[int]],
        Shown(
            "histogram",
            "Times.",
            name="kind_seconds",
            label="kind",
            bounds=(1.0,),
            sum_field="spent_by_kind",
        ),
    ] = field(default_factory=lambda: {"a": [2, 1]})
    undeclared: int = 5
    secret: str = "none"  # noqa: S105 - what is no number is not shown


class _Once:
    """Collect the fields of one object."""

    def collect(self) -> Any:
        """Yield them."""
        return shown_fields([({}, Counted())], "x")


def test_fields_are_shown_as_they_are_declared() -> None:
    """Numbers, numbers by kind, cumulative buckets; what is not declared has no type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once())
    lines = generate_latest(registry).decode().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        "x_done_total 3.0",
        "x_here 2.0",
        'x_kinds_total{kind="a"} 1.0',
        'x_kinds_total{kind="b"} 2.0',
        'x_wait_seconds_bucket{le="1.0"} 1.0',
        'x_wait_seconds_bucket{le="2.5"} 3.0',
        'x_wait_seconds_bucket{le="+Inf"} 6.0',
        "x_wait_seconds_count 6.0",
        "x_wait_seconds_sum 7.5",
        'x_kind_seconds_bucket{kind="a",le="1.0"} 2.0',
        'x_kind_seconds_bucket{kind="a",le="+Inf"} 3.0',
        'x_kind_seconds_count{kind="a"} 3.0',
        'x_kind_seconds_sum{kind="a"} 0.5',
        "x_undeclared 5.0",
    ]
    assert "# TYPE x_undeclared untyped" in lines


async def test_a_key_is_wanted_where_keys_are_set() -> None:
    """The rule of the API's other endpoints."""
    settings = Settings(server=ServerSettings(api_keys=("k-of-sixteen-or-more",)))
    async with serving(EchoEngine(), settings) as served:
        status, body = await served.get("/metrics")
        assert (status, body["error"]["code"]) == (401, "invalid_api_key")
        status, text = await served.get("/metrics", authorization="Bearer k-of-sixteen-or-more")
        assert status == 200
        assert 'parley_engine_up{engine="0",model="starter"} 1.0' in text
