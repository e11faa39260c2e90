"""The fuzzer of the protocol, for a moment; `python -m tests.fuzz.protocol` goes on for longer."""

from collections import Counter

import pytest

from tests.fuzz import protocol


@pytest.mark.parametrize("name", protocol.GAMES)
def test_nothing_breaks(name: str) -> None:
    """And there was something to break."""
    counts: Counter[str] = Counter()
    protocol.play(name, 0, counts, num_examples=15)
    assert counts[name] >= 15
    assert counts["events"]
