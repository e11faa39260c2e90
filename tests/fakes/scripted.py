"""The scripted engine on a thread of the test's own process."""

from time import monotonic

from model.engine.local import LocalEngine
from model.scripted.engine import ScriptedCore
from model.scripted.script import Script


def scripted_engine(
    script: Script, *, max_sessions: int, ahead_ms: int, name: str = "scripted"
) -> LocalEngine:
    """Return an engine that follows a script, not yet started.

    Args:
        script: to follow, each session from its start.
        max_sessions: sessions that may be open at once.
        ahead_ms: audio of a reply that may be made before its time to be played.
        name: what the engine calls its model.
    """
    core = ScriptedCore(
        script, max_sessions=max_sessions, ahead_ms=ahead_ms, clock=monotonic, name=name
    )
    return LocalEngine(core)
