"""Golden transcripts: client events in, server events and engine commands out, in their order."""

from pathlib import Path

import pytest

from tests.server.protocol.transcripts import GOLDEN, played, read


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.jsonl")), ids=lambda path: path.stem)
def test_transcript(path: Path) -> None:
    """What comes out today is what was reviewed, event by event, and parses as published."""
    expected = read(path)
    for number, (now, before) in enumerate(zip(played(expected), expected, strict=True), 1):
        assert now == before, f"{path.name}:{number}"
