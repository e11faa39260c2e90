"""Which engine the settings ask for."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from model.assemble.spec import DuplexSpec, ScriptedSpec, StarterSpec, TwinSpec
from model.engine.core import CoreSpec
from model.engine.local import LocalEngine
from model.engine.process import ProcessEngine, RestartPolicy
from model.messages import Engine
from server.config.models import EngineSettings
from server.config.settings import Settings
from server.errors import ConfigError
from server.names import ROOT

# A file that only a starter has.
STARTER_FILE = "codec.safetensors"


def make_engines(settings: Settings) -> Mapping[str, Sequence[Engine]]:
    """Return the engines of each model by its name, in order, not started.

    There is one on each of a model's devices. Those in processes of their own load at the same
    time.

    Raises:
        ParleyError: an engine cannot be made; see `make_engine`. Those made before it are stopped.
    """
    engines: dict[str, list[Engine]] = {}
    try:
        for alone in settings.each_model:
            made: list[Engine] = []
            engines[alone.model.name] = made
            made.extend(make_engine(on_device(alone, each)) for each in alone.engine.places)
    except BaseException:
        for each in itertools.chain.from_iterable(engines.values()):
            each.stop()
        raise
    return engines


def on_device(settings: Settings, device: str) -> Settings:
    """Return the settings of a model's engine on one of its devices."""
    engine = settings.engine.model_copy(update={"device": device, "devices": ()})
    return settings.model_copy(update={"engine": engine})


def make_engine(settings: Settings) -> Engine:
    """Return the engine of the only model on its only device, not started.

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
    if engine.device != "cpu" and (model.twin is not None or is_starter(directory)):
        raise ConfigError(f"engine.device: this model runs on cpu only, got {engine.device!r}")
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
