"""Say which engine to run, in a few plain values that can travel to another process.

Importing this loads no network: whoever only passes a spec on does not wait for PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Literal

from model.engine.config import EngineConfig
from model.engine.core import EngineCore
from model.family import ServedKind


@dataclass(frozen=True, slots=True)
class StarterSpec:
    """Serve the weights of a starter directory.

    Attributes:
        directory: written by `model.assemble.weights.save_starter`.
        name: what the engine calls its model.
        config: of the engine.
    """

    directory: Path
    name: str = "starter"
    config: EngineConfig = field(default_factory=EngineConfig)

    def build(self, clock: Callable[[], float] = monotonic) -> EngineCore:
        """Read the weights; see `CoreSpec.build`."""
        # Here and not on top: the gateway imports this module to say which engine it wants, and
        # must not load PyTorch for that.
        from model.assemble.starter import load_core  # noqa: PLC0415 - loads torch

        return load_core(self.directory, self.config, name=self.name, clock=clock)


@dataclass(frozen=True, slots=True)
class DuplexSpec:
    """Serve a checkpoint of the Kyutai family that listens and speaks at once.

    Attributes:
        directory: with the checkpoint, in any layout of `model.kyutai.check`.
        name: what the engine calls its model.
        config: of the engine.
        dtype: of the weights that are not quantised.
        device: where they go.
        guidance: see `model.assemble.kyutai.make_parts`.
    """

    directory: Path
    name: str
    config: EngineConfig = field(default_factory=EngineConfig)
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = "cpu"
    guidance: float = 1.0

    def build(self) -> EngineCore:
        """Read the weights; see `CoreSpec.build`."""
        from model.assemble.kyutai import load_parts  # noqa: PLC0415 - loads torch
        from model.duplex.engine import DuplexEngine  # noqa: PLC0415 - the same

        parts = load_parts(
            self.directory,
            self.name,
            linears=self.config.linears,
            dtype=self.dtype,
            device=self.device,
            guidance=self.guidance,
        )
        return DuplexEngine(parts, self.config, clock=monotonic)


@dataclass(frozen=True, slots=True)
class TwinSpec:
    """Serve the random twin of a model that listens and speaks at once.

    Attributes:
        kind: of which model.
        name: what the engine calls its model.
        config: of the engine; the seed is that of the weights too.
        guidance: see `model.assemble.kyutai.make_parts`.
    """

    # Three kinds, since they differ in what a server has to do: Moshi talks by itself, PersonaPlex
    # begins with a prompt and is a frame behind, Hibiki ends when its input does.
    kind: ServedKind
    name: str
    config: EngineConfig = field(default_factory=EngineConfig)
    guidance: float = 1.0

    def build(self) -> EngineCore:
        """Make the weights; see `CoreSpec.build`."""
        from model.assemble.twin import make_twin  # noqa: PLC0415 - loads torch
        from model.duplex.engine import DuplexEngine  # noqa: PLC0415 - the same

        parts = make_twin(self.kind, self.config.seed, self.name, guidance=self.guidance)
        return DuplexEngine(parts, self.config, clock=monotonic)


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

    def build(self, clock: Callable[[], float] = monotonic) -> EngineCore:
        """Read the script; see `CoreSpec.build`."""
        from model.scripted.engine import ScriptedCore  # noqa: PLC0415 - not for who has weights
        from model.scripted.script import load_script  # noqa: PLC0415 - the same

        return ScriptedCore(
            load_script(self.script),
            max_sessions=self.max_sessions,
            ahead_ms=self.ahead_ms,
            clock=clock,
            name=self.name,
        )
