"""The checkpoints that are known by name: `checkpoints.yaml`, read strictly."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from model.errors import ConfigError
from model.kyutai.config import KINDS

_FILE = Path(__file__).with_name("checkpoints.yaml")


@dataclass(frozen=True, slots=True)
class Expected:
    """What is known of a file before it is fetched; None for what is not.

    Attributes:
        num_bytes: its size.
        sha256: of its contents, in hexadecimal.
    """

    num_bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class HubSource:
    """What is taken from one repository.

    Attributes:
        repo: its owner and name on the hub.
        revision: the commit; None if none is known.
        files: by name or pattern.
    """

    repo: str
    revision: str | None
    files: Mapping[str, Expected]


@dataclass(frozen=True, slots=True)
class Entry:
    """One known checkpoint.

    Attributes:
        name: as `parley pull` takes it.
        about: what it is, in half a line.
        kind: how it is driven.
        licence: of its weights.
        is_gated: whether the licence must be accepted on the hub first.
        sources: where its files are.
    """

    name: str
    about: str
    kind: str
    licence: str
    is_gated: bool
    sources: tuple[HubSource, ...]


@functools.cache
def catalogue() -> Mapping[str, Entry]:
    """Return all known checkpoints by name, in the order in which they should be listed."""
    return parse_catalogue(_FILE.read_text(encoding="utf-8"))


def entry(name: str) -> Entry:
    """Return a known checkpoint.

    Raises:
        ConfigError: if the name is not known, with the one that may have been meant.
    """
    known = catalogue()
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        meant = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(f"no checkpoint {name!r} (there are {', '.join(known)}){meant}")
    return known[name]


def parse_catalogue(text: str) -> dict[str, Entry]:
    """Read the text of a table of checkpoints.

    Raises:
        ConfigError: naming the checkpoint and what is wrong with it.
    """
    found: dict[str, Entry] = {}
    # The table is ours, so an error in it is a programmer's. It is still told in one line, with the
    # name of the checkpoint.
    for name, values in yaml.safe_load(text).items():
        try:
            found[name] = _entry(name, values)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"{name}: not a checkpoint ({error!r})") from error
    return found


def _entry(name: str, values: Mapping[str, Any]) -> Entry:
    _refuse_unknown(name, values, {"about", "kind", "licence", "gated", "sources"})
    if values["kind"] not in KINDS:
        raise ConfigError(f"{name}: kind: expected one of {', '.join(KINDS)}")
    sources = tuple(_source(name, source) for source in values["sources"])
    return Entry(
        name,
        about=values["about"],
        kind=values["kind"],
        licence=values["licence"],
        is_gated=values.get("gated", False),
        sources=sources,
    )


def _source(name: str, values: Mapping[str, Any]) -> HubSource:
    _refuse_unknown(name, values, {"repo", "revision", "files"})
    files: dict[str, Expected] = {}
    # A name may be a pattern, such as "model-*.safetensors". What is known of a file holds for
    # every file that the pattern finds.
    for file, expected in values["files"].items():
        _refuse_unknown(f"{name}: {file}", expected, {"bytes", "sha256"})
        files[file] = Expected(expected.get("bytes"), expected.get("sha256"))
    return HubSource(values["repo"], values.get("revision"), files)


def _refuse_unknown(where: str, values: Mapping[str, Any], known: set[str]) -> None:
    if unknown := sorted(values.keys() - known):
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}")
