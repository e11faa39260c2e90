"""The benchmark of filters asks what it says, and gets every answer."""

from benchmarks.bench_filters import delays_ms, measure
from server.config.filters import FilterSettings


async def test_each_session_gets_a_verdict_for_each_sentence() -> None:
    """None is left out, and none took no time."""
    checks = {"checks": [{"kind": "words", "words": ["b"]}]}
    settings = FilterSettings.model_validate(checks)
    taken = await delays_ms(settings, 3, ["a", "b"], 2)
    assert taken.shape == (2, 2, 3)
    assert (taken > 0).all()


def test_all_figures_are_there() -> None:
    """For one session and for many."""
    names = set(measure(1))
    assert {"first_p95_ms_1", "first_p95_ms_16", "sentence_p95_ms_1"} <= names
    assert len(names) == 8
