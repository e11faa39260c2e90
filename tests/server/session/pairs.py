"""Choose cases of features that can all be combined."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations, product
from typing import Any


def covering(features: Mapping[str, tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Yield cases, a value for each feature, so that any two values meet in one."""
    cases = list(product(*features.values()))
    open_pairs = set().union(*(_pairs(case) for case in cases))
    while open_pairs:
        best = max(cases, key=lambda case: len(_pairs(case) & open_pairs))
        open_pairs -= _pairs(best)
        yield best


def _pairs(case: Iterable[Any]) -> set[Any]:
    return set(combinations(enumerate(case), 2))
