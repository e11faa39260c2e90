"""Count what checks do. Written and read in the event loop."""

from dataclasses import dataclass, field
from typing import Annotated

from model.metrics import PART, Shown, bucket, counter_by, no_counts

# Upper bounds in seconds. A check here takes a millisecond; another server's has 0.1 s, the
# default of `budget_ms`.
CHECK_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(slots=True)
class FilterCounts:
    """Hold what is counted of all sessions' checks since the server started.

    What a field counts is said once, where it is declared, and shown by the server at `/metrics`.
    """

    hits: Annotated[
        dict[str, int],
        counter_by("check", "Texts in which a check found something, refused or masked."),
    ] = field(default_factory=dict)
    late: Annotated[
        dict[str, int], counter_by("check", "Texts that a check did not judge in its time.")
    ] = field(default_factory=dict)
    broken: Annotated[
        dict[str, int], counter_by("check", "Texts that a check failed to judge.")
    ] = field(default_factory=dict)
    seconds: Annotated[float, PART] = 0.0
    buckets: Annotated[
        list[int],
        Shown(
            "histogram",
            "Time that a check took for a text.",
            name="check_seconds",
            bounds=CHECK_BUCKETS_S,
            sum_field="seconds",
        ),
    ] = field(default_factory=lambda: no_counts(CHECK_BUCKETS_S))

    def count_time(self, seconds: float) -> None:
        """Count how long a check took."""
        self.seconds += seconds
        self.buckets[bucket(CHECK_BUCKETS_S, seconds)] += 1


def count_in(counts: dict[str, int], name: str) -> None:
    """Count one more of a check's."""
    counts[name] = counts.get(name, 0) + 1
