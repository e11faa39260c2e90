"""The walk and the glossary name what there is."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def _defines(text: str, name: str) -> bool:
    """Say whether a module defines a class, a function or an alias of that name."""
    return bool(
        re.search(rf"^\s*(class|def|async def) {name}\b|^{name}\b.* = ", text, re.MULTILINE)
    )


def test_every_word_of_the_glossary_is_carried_by_what_it_names() -> None:
    """At most forty words, each once, each with a module that defines its type."""
    rows = re.findall(
        r"^\| ([^|]+) \| [^|]+ \| `([\w/]+\.py)` `(\w+)` \|$",
        (ROOT / "docs" / "glossary.md").read_text(),
        re.MULTILINE,
    )
    words = [word for word, _, _ in rows]
    assert 20 < len(words) <= 40
    assert len(set(words)) == len(words)
    for word, path, name in rows:
        assert _defines((ROOT / path).read_text(), name), f"{word}: {path} has no {name}"


def test_the_walk_goes_through_eight_files_that_have_what_it_names() -> None:
    """Each function that a reader is sent to is in that stop's file, or in one named beside it."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    walk = text[text.index("## The walk") : text.index("## A conversation as steps")]
    stops = re.split(r"^### \d\. ", walk, flags=re.MULTILINE)[1:]
    assert len(stops) == 8
    minutes = 0
    for stop in stops:
        heading, _, body = stop.partition("\n")
        minutes += int(re.findall(r"(\d+) minutes", heading)[0])
        paths = re.findall(r"`([\w/]+\.py)`", stop.split("\n\nThen follow")[0])
        modules = "\n".join((ROOT / path).read_text() for path in paths)
        for name in re.findall(r"`([\w.]+)`", body.split("\n\nThen follow")[0]):
            if name not in paths and not name.startswith("make"):
                assert re.search(rf"\b{name.rsplit('.', 1)[-1]}\b", modules), f"{heading}: {name}"
    assert minutes <= 120
