"""Decide how many sessions the server admits, and say why so many."""

from collections.abc import Mapping
from dataclasses import dataclass

from server.capacity.record import Machine, find_record, key_of
from server.config.settings import Settings
from server.names import ROOT


@dataclass(frozen=True, slots=True)
class Bound:
    """How many sessions are admitted.

    Attributes:
        sessions: at once, responses with a memory of their own among them.
        reason: where the number comes from, for the log.
    """

    sessions: int
    reason: str


def session_bound(settings: Settings, machine: Machine) -> Bound:
    """Return how many sessions each engine of the only model takes.

    The setting if there is one, else what was measured on this machine, else the default.

    Raises:
        ConfigError: the file of measurements is there and broken.
    """
    # Who sets a number knows why. Otherwise the machine's own figure is better than any default:
    # too many sessions make every call stutter, and one refusal is a clear answer.
    if "max_sessions" in settings.engine.model_fields_set:
        return Bound(settings.engine.max_sessions, "engine.max_sessions is set")
    path = ROOT / settings.server.capacity_file
    # A figure of another model, another configuration or another machine is not looked at.
    record = find_record(path, key_of(settings, machine))
    if record is not None:
        return Bound(record.sessions, f"measured on {record.date}, kept in {path}")
    why = (
        f"{path} has nothing for this model, configuration and machine"
        if path.exists()
        else (f"there is no {path}")
    )
    return Bound(settings.engine.max_sessions, f"the default: {why}; `parley capacity` measures it")


def with_bounds(settings: Settings, sessions: Mapping[str, int]) -> Settings:
    """Return the settings with so many sessions for each model's engine, by its name."""
    if not settings.models:
        return with_max_sessions(settings, sessions[settings.model.name])
    models = {}
    for name, served in settings.models.items():
        engine = served.engine.model_copy(update={"max_sessions": sessions[name]})
        models[name] = served.model_copy(update={"engine": engine})
    return settings.model_copy(update={"models": models})


def with_max_sessions(settings: Settings, max_sessions: int) -> Settings:
    """Return the settings with that many sessions in the place of whatever they had."""
    engine = settings.engine.model_copy(update={"max_sessions": max_sessions})
    return settings.model_copy(update={"engine": engine})
