"""Which engine the settings ask for."""

from pathlib import Path

from model.assemble.spec import DuplexSpec, ScriptedSpec, StarterSpec, TwinSpec
from model.engine.core import CoreSpec
from model.engine.local import LocalEngine
from model.engine.process import ProcessEngine, RestartPolicy
from model.messages import Engine
from server.config import EngineSettings, Settings
from server.errors import ConfigError
from server.names import ROOT

# A file that only a starter has.
STARTER_FILE = "codec.safetensors"


def make_engine(settings: Settings) -> Engine:
    """Return the engine, not started.

    In this process it reads the model's weights, or a script, now; a process of its own has begun
    to read them, and what goes wrong there is raised where the engine is first asked for anything.

    Raises:
        WeightsError: a file is missing, broken or does not fit.
        ScriptError: the script is broken.
        ConfigError: there is no such folder, or the model cannot be had as it is asked for.
    """
    spec = core_spec(settings)
    # A process of its own has an interpreter of its own: the model's Python never holds up the
    # event loop, and a crash in a kernel ends no connection.
    if settings.engine.placement == "process":
        engine = settings.engine
        policy = RestartPolicy(hang_s=engine.hang_s, loading_s=engine.loading_s)
        return ProcessEngine(spec, policy)
    return LocalEngine(spec.build())


def core_spec(settings: Settings) -> CoreSpec:
    """Return what the settings say of the engine's core."""
    engine: EngineSettings = settings.engine
    if settings.model.script is not None:
        return ScriptedSpec(
            ROOT / settings.model.script,
            max_sessions=engine.max_sessions,
            ahead_ms=engine.ahead_ms,
            name=settings.model.name,
        )
    model, config = settings.model, engine.core
    directory = ROOT / model.dir
    if model.twin is not None:
        return TwinSpec(model.twin, model.name, config, model.guidance)
    if is_starter(directory):
        return StarterSpec(directory, model.name, config)
    return DuplexSpec(directory, model.name, config, engine.dtype, engine.device, model.guidance)


def is_starter(directory: Path) -> bool:
    """Say whether a folder holds a starter; else it holds a model as others publish them.

    Raises:
        ConfigError: there is no such folder.
    """
    if not directory.is_dir():
        raise ConfigError(
            f"model.dir: {directory} does not exist; `parley pull` fetches checkpoints that are "
            "known by name"
        )
    return (directory / STARTER_FILE).exists() or not any(directory.glob("*.safetensors*"))
