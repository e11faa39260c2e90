"""Do what `parley usage` does: add up the ledger of what was used."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Literal, TypeAlias

from server.protocol.wire.checks import JsonObject
from server.session.ledger import read_ledger
from server.session.usage import Used

Column: TypeAlias = Literal["key", "model", "day", "session"]
COLUMNS: tuple[Column, ...] = ("key", "model", "day", "session")

_NAMES = tuple(field.name for field in fields(Used))
_HEADS = ("sessions", "minutes", "in s", "out s", "responses", "tokens in", "cached", "out")


def add_up(
    lines: Iterator[JsonObject], columns: Sequence[Column]
) -> Mapping[tuple[str, ...], Used]:
    """Return what was used by each combination of what stands in the columns.

    Args:
        lines: of a ledger.
        columns: by which it is told apart. A day is UTC's, of the time when the line was written;
            what has no key, or no session any more, has an empty one.
    """
    sums: dict[tuple[str, ...], Used] = {}
    for line in lines:
        if line["what"] == "started":
            continue
        row = tuple(str((line["time"][:10] if c == "day" else line.get(c)) or "") for c in columns)
        used = Used(**{name: line[name] for name in _NAMES if name in line})
        sums.setdefault(row, Used()).add(used)
    return dict(sorted(sums.items()))


def print_usage(paths: Sequence[Path], columns: Sequence[Column]) -> None:
    """Print a table of what was used, and a line of JSON.

    Args:
        paths: of ledger files.
        columns: see `add_up`.

    Raises:
        ConfigError: a file cannot be read, or is none of ours.
    """
    sums = add_up((line for path in paths for line in read_ledger(path)), columns)
    rows = [(*columns, *_HEADS), *((*row, *_cells(used)) for row, used in sums.items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        names = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        numbers = (text.rjust(width) for text, width in zip(row, widths, strict=True))
        cells = [*names][: len(columns)] + [*numbers][len(columns) :]
        print("  ".join(cells).rstrip())
    told = [
        {**dict(zip(columns, row, strict=True)), **used.to_json()} for row, used in sums.items()
    ]
    print(json.dumps({"usage": told}))


def _cells(used: Used) -> tuple[str, ...]:
    tokens_in = used.input_text_tokens + used.input_audio_tokens + used.input_image_tokens
    cached = (
        used.input_cached_text_tokens
        + used.input_cached_audio_tokens
        + used.input_cached_image_tokens
    )
    return (
        str(used.sessions),
        f"{used.seconds / 60:.1f}",
        f"{used.audio_in_seconds:.1f}",
        f"{used.audio_out_seconds:.1f}",
        str(used.responses),
        str(tokens_in),
        str(cached),
        str(used.output_text_tokens + used.output_audio_tokens),
    )
