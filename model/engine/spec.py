"""Say which engine to run, in a few plain values that can travel to another process.

Importing this loads no network: whoever only passes a spec on does not wait for PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

from model.engine.local import EngineCore


class CoreSpec(Protocol):
    """Build an engine's core wherever it is wanted; an implementation can be pickled."""

    def build(self) -> EngineCore:
        """Return the core, with `time.monotonic` as its clock.

        Raises:
            ParleyError: it cannot be had; the message says why.
        """
        ...


@dataclass(frozen=True, slots=True)
class StarterSpec:
    """Serve the weights of a starter directory.

    Attributes:
        directory: written by `model.weights.save_starter`.
        name: what the engine calls its model.
        config: fields of `model.engine.config.EngineConfig`.
    """

    directory: Path
    name: str = "starter"
    config: Mapping[str, Any] = field(default_factory=dict)  # `Any`: as different as the fields

    def build(self) -> EngineCore:
        """Read the weights; see `CoreSpec.build`."""
        from model.engine.config import EngineConfig  # noqa: PLC0415 - loads torch
        from model.engine.load import load_core  # noqa: PLC0415 - the same

        return load_core(self.directory, EngineConfig(**self.config), name=self.name)


@dataclass(frozen=True, slots=True)
class ScriptedSpec:
    """Follow a script.

    Attributes:
        script: the file.
        max_sessions: sessions that may be open at once.
        ahead_ms: audio of a reply that may be made before its time to be played.
        name: what the engine calls its model.
    """

    script: Path
    max_sessions: int
    ahead_ms: int
    name: str = "scripted"

    def build(self) -> EngineCore:
        """Read the script; see `CoreSpec.build`."""
        from model.scripted.engine import ScriptedCore  # noqa: PLC0415 - not for who has weights
        from model.scripted.script import load_script  # noqa: PLC0415 - the same

        return ScriptedCore(
            load_script(self.script),
            max_sessions=self.max_sessions,
            ahead_ms=self.ahead_ms,
            clock=monotonic,
            name=self.name,
        )
