"""Say which engine made a recording, so that a replay knows whether it is the same."""

import hashlib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from server.config.settings import Settings
from server.names import ROOT, parley_version

# What decides about tokens, apart from the model.
_SETTINGS = ("linears", "dtype", "device", "kv", "num_threads", "ahead_ms")


def identities(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return what is known of the engine of each model of a server, by the model's name; JSON."""
    return {alone.model.name: identity(alone) for alone in settings.each_model}


def identity(settings: Settings) -> dict[str, Any]:
    """Return what is known of the engine of the only model; JSON.

    Reads all files of the model, which takes a second for each gigabyte or so.
    """
    model = settings.model
    engine = settings.engine.model_dump(include=set(_SETTINGS), mode="json")
    made: dict[str, Any] = {
        "parley": parley_version(),
        "torch": metadata.version("torch"),
        "model": model.name,
        "engine": engine,
    }
    if model.twin is not None:
        return made | {"kind": model.twin, "files": {}, "seed": settings.engine.seed}
    if model.script is not None:
        script = ROOT / model.script
        return made | {"kind": "script", "files": {script.name: _digest(script)}}
    folder = ROOT / model.dir
    files = sorted(each for each in folder.iterdir() if each.is_file())
    return made | {"kind": "weights", "files": {each.name: _digest(each) for each in files}}


def differences(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs from the recording, one line each."""
    told = [
        f"{key}: then {recorded.get(key)}, now {now.get(key)}"
        for key in ("parley", "torch", "kind", "seed")
        if recorded.get(key) != now.get(key)
    ]
    for section in ("engine", "files"):
        then, today = recorded.get(section, {}), now.get(section, {})
        told += [
            f"{name}: then {_short(then.get(name))}, now {_short(today.get(name))}"
            for name in sorted({*then, *today})
            if then.get(name) != today.get(name)
        ]
    return told


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 else text


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
