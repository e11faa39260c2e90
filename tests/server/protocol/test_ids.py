"""Identifiers: unguessable, unique, and short enough for clients to replay."""

import re

from server.protocol.ids import RandomIds


def test_ids_are_unique_and_readable() -> None:
    """A prefix, an underscore and 21 letters and digits: at most 32 characters for items."""
    made = [RandomIds().new("item") for _ in range(2_000)]
    assert len(set(made)) == len(made)
    assert all(re.fullmatch(r"item_[A-Za-z0-9]{21}", each) for each in made)
    assert len(made[0]) <= 32


def test_every_character_is_used() -> None:
    """None of the 62 is missing or crowds out the others."""
    text = "".join(RandomIds().new("x")[2:] for _ in range(2_000))
    counts = [text.count(char) for char in set(text)]
    assert len(counts) == 62
    assert max(counts) < 2 * min(counts)
