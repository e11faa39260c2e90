"""Golden transcripts: client events in, server events and engine commands out, in their order."""

from pathlib import Path

import pytest

from tests.server.protocol.transcripts import GOLDEN, paths, played, read


@pytest.mark.parametrize("path", paths(), ids=lambda path: str(path.relative_to(GOLDEN)))
def test_transcript(path: Path) -> None:
    """What comes out today is what was reviewed, event by event, and parses as published."""
    expected = read(path)
    for number, (now, before) in enumerate(zip(played(path), expected, strict=True), 1):
        assert now == before, f"{path.name}:{number}"
