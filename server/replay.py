"""The command `parley replay`: do a recording again, and say whether every token is the same."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from model.assemble.spec import ScriptedSpec, StarterSpec
from model.engine.log import Log, Logged, read_log
from model.engine.replay import Replay, ReplayClock, Replayed
from model.messages import AppendText, CommitAudio
from server.config.settings import Settings
from server.engine import core_spec, on_device
from server.errors import ConfigError
from server.recording.files import ENGINE
from server.recording.identity import differences, identity


@dataclass(frozen=True, slots=True)
class Report:
    """Say how a replay went.

    Attributes:
        engine: what is not as it was when the recording was made.
        changed: the entry of the log that was changed afterwards, in one line; None for none.
        is_whole: False where the log was cut off.
        done: what was done again, and the first difference.
    """

    engine: list[str]
    changed: str | None
    is_whole: bool
    done: Replayed

    @property
    def is_same(self) -> bool:
        """Say whether every token is the same, of a log that nobody changed."""
        return self.done.difference is None and self.changed is None and self.done.sessions > 0

    def to_json(self) -> dict[str, Any]:
        """Write it as JSON."""
        done = asdict(self.done)
        difference = self.done.difference
        done["difference"] = None if difference is None else asdict(difference)
        return {
            "is_same": self.is_same,
            "engine": self.engine,
            "changed": self.changed,
            "is_whole": self.is_whole,
            **done,
        }


def replay(recording: Path, settings: Settings) -> Report:
    """Do a recording again.

    Args:
        recording: its folder, or its `engine.log`.
        settings: which engine to do it with. Where they have several models, it is the one that the
            recording names.

    Raises:
        ConfigError: there is no such recording, or this engine cannot do one again.
        LogError: the file is not a log.
        WeightsError: the model cannot be loaded.
        ScriptError: the script is broken.
    """
    log = _read(recording / ENGINE if recording.is_dir() else recording)
    settings = _of_model(settings, log.header.get("model"))
    spec = core_spec(settings)
    if not isinstance(spec, StarterSpec | ScriptedSpec):
        raise ConfigError(
            "a model that listens and speaks at once notes nothing, so its recordings cannot be "
            "done again"
        )
    clock = ReplayClock()
    core = spec.build(clock)
    try:
        core.warm_up()
        done = Replay(core, clock).run(log.entries)
    finally:
        core.close()
    engine = differences(log.header, identity(settings))
    return Report(engine, _changed(log), log.is_whole, done)


def _of_model(settings: Settings, name: object) -> Settings:
    """Return the settings of the model that a recording names; of the only one, whatever its name.

    Raises:
        ConfigError: there are several, and none of that name.
    """
    # So a recording of one model can be done again with another one, to see where they part.
    models = {alone.model.name: alone for alone in settings.each_model}
    found = models.get(str(name)) if settings.models else settings
    if found is None:
        raise ConfigError(
            f"models: the recording is of the model {name!r}, and there are only "
            f"{', '.join(map(repr, models))}"
        )
    # Each device does the same.
    return on_device(found, found.engine.places[0])


def _read(path: Path) -> Log:
    try:
        return read_log(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None


def _changed(log: Log) -> str | None:
    """Name the entry that was changed after it was written."""
    if log.changed is None:
        return None
    if log.changed < 0:
        return "the head of the log"
    turn = _turns_before(log.entries[: log.changed])
    if log.changed >= len(log.entries):
        return f"turn {turn}: what stood at the end"
    entry = log.entries[log.changed]
    return f"turn {turn}: entry {log.changed}, a {type(entry).__name__}, or what stood before it"


def _turns_before(entries: Sequence[Logged]) -> int:
    """Count the turns that were committed, for a person to find the place."""
    ended = [entry for entry in entries if isinstance(entry, CommitAudio | AppendText)]
    return len({entry.item_id for entry in ended}) + 1


def print_report(report: Report, *, is_json: bool) -> None:
    """Tell a person, or a program."""
    if is_json:
        print(json.dumps(report.to_json()))
        return
    done = report.done
    for line in report.engine:
        print(f"engine differs: {line}")
    if not report.is_whole:
        print("the log was cut off: it was done again up to there")
    if report.changed is not None:
        print(f"changed after it was recorded: {report.changed}")
    if done.skipped:
        print(f"{done.skipped} sessions of the engine have no beginning in the log: left out")
    print(
        f"{done.turns} turns, {done.commands} commands, {done.steps} steps, {done.tokens} tokens, "
        f"{done.outputs} outputs; {done.sounds} pieces of sound to the bit, "
        f"{done.rounded} rounded differently"
    )
    print("every token is the same" if report.is_same else _told(report))


def _told(report: Report) -> str:
    if report.done.difference is not None:
        return f"NOT the same: {report.done.difference}"
    if not report.done.sessions:
        return "NOT compared: there is nothing in the log that could be done again"
    return "every token is the same, but the log was changed"
