"""`parley replay` says whether every token of a recorded call is the same, or names what is not."""

import asyncio
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.assemble.spec import StarterSpec
from model.engine.config import EngineConfig
from model.engine.core import EngineCore
from model.engine.log import LogWriter, read_log
from model.files.sound import read_sound
from model.messages import AppendAudio, AppendText, Cancel, Command, CommitAudio, Reopen
from server.audio.silero import SileroModel
from server.cli import main
from server.commands.common import EXIT_CONFIG, EXIT_RUNTIME
from server.config.load import load_settings
from server.config.records import RecordingSettings
from server.engine import make_engines
from server.names import ROOT
from server.protocol.settings.config import ServerVad, SessionConfig
from server.recording.identity import identities
from server.recording.recorder import Recorder
from server.recording.witness import SessionRecording
from server.session.counts import Counts
from server.session.witness import Witness
from tests.server.client.realtime import talked
from tests.server.serving import serving
from tests.server.session.virtual import WIRE_HZ, Samples, Time, scripted, virtually

ASSETS = Path(__file__).parents[1] / "assets"
SCRIPTED = ROOT / "configs" / "scripted.yaml"
STARTER = ROOT / "configs" / "starter.yaml"
SCRIPT = """
hear: [what is two plus two, and three plus three]
reply:
  - when: {user: three}
    say: that is six
  - say: two plus two is four and this goes on for so long that one can say other things
"""


def question(seconds: float = 9.0) -> Samples:
    """Return what a user says, or the beginning of it; the starter's answer takes two seconds."""
    return read_sound(ASSETS / "my_name_is_peter.wav", WIRE_HZ)[: int(seconds * WIRE_HZ)]


def silence(seconds: float) -> Samples:
    """Return what a user says in between."""
    return np.zeros(int(seconds * WIRE_HZ), np.float32)


async def recorded(folder: Path, make_core: Any, config: Path, *overrides: str) -> Path:
    """Record a call with a pause that was no end, a reply that is talked over, and a typed turn.

    Args:
        folder: for it.
        make_core: makes the engine's core.
        config: of the engine.
        overrides: of the configuration.

    Returns:
        The recording's folder.
    """
    settings = load_settings(config, overrides, {})
    recorder = Recorder(
        RecordingSettings(enabled=True, dir=folder), Counts(), lambda: identities(settings)
    )

    def witnesses(session: SessionConfig) -> Sequence[Witness]:
        core = made[0].info
        return [
            SessionRecording(
                recorder,
                session,
                core.sample_rate_hz,
                model=settings.model.name,
                is_played=False,
                about={},
            )
        ]

    made: list[EngineCore] = []

    def make(time: Time) -> EngineCore:
        made.append(make_core(time))
        return made[0]

    async with virtually(
        SileroModel(),
        make,
        witnesses=witnesses,
        recording="given",
        turn_detection=ServerVad(silence_duration_ms=500),
    ) as virtual:
        await virtual.say(question(1.0), piece_s=0.08)
        await virtual.say(silence(0.2), piece_s=0.08)
        await virtual.say(question(), piece_s=0.08)
        await virtual.say(silence(0.6), piece_s=0.08)
        while "response.output_audio.delta" not in virtual.kinds():
            await virtual.wait(0.02)
        await virtual.say(question(), piece_s=0.08)
        await virtual.say(silence(0.6), piece_s=0.08)
        await virtual.wait(12.0, step_s=0.1)
        await virtual.type("what is two plus two")
        await virtual.send("response.create")
        await virtual.wait(8.0, step_s=0.1)
        assert virtual.kinds().count("response.done") >= 3
    recorder.close()
    return only(folder)


def only(folder: Path) -> Path:
    """Return the one recording of a folder."""
    (kept,) = (each for each in folder.iterdir() if "_" in each.name)
    return kept


def commands(folder: Path) -> set[type[Command]]:
    """Return which kinds of commands a recording has."""
    entries = read_log(folder / "engine.log").entries
    return {type(entry) for entry in entries if isinstance(entry, Command)}


def rewritten(folder: Path, change: Any) -> Path:
    """Write a recording's log anew with one message changed, as if it had been so at first."""
    other = folder.parent / "other_recording"
    shutil.rmtree(other, ignore_errors=True)
    shutil.copytree(folder, other)
    log = read_log(folder / "engine.log")
    entries = [change(entry) for entry in log.entries]
    with (other / "engine.log").open("wb") as file:
        writer = LogWriter(file, log.header)
        for entry in entries:
            writer.write(entry)
    return other


def replayed(capsys: pytest.CaptureFixture[str], folder: Path, *words: str) -> tuple[int, Any]:
    """Run the command; returns its exit code and its report."""
    capsys.readouterr()  # what the recorder logged
    code = main(["replay", str(folder), "--json", *words])
    return code, json.loads(capsys.readouterr().out)


async def test_a_scripted_call_is_the_same_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a reply that was begun and taken back, and one that was talked over."""
    script = tmp_path / "script.yaml"
    script.write_text(SCRIPT)
    words = ("--config", str(SCRIPTED), "--set", f"model.script={script}")
    folder = await recorded(
        tmp_path / "kept",
        lambda time: scripted(SCRIPT, time),
        SCRIPTED,
        f"model.script={script}",
    )
    assert {Cancel, Reopen, CommitAudio, AppendText} <= commands(folder)
    code, report = replayed(capsys, folder, *words)
    assert (code, report["is_same"], report["engine"]) == (0, True, [])
    assert report["turns"] >= 3
    assert main(["replay", str(folder), *words]) == 0
    assert capsys.readouterr().out.endswith("every token is the same\n")

    # Another script says something else, and both the file and the turn are named.
    script.write_text(SCRIPT.replace("that is six", "that is seven"))
    code, report = replayed(capsys, folder, *words)
    assert code == EXIT_RUNTIME
    assert report["engine"][0].startswith("script.yaml: then ")
    assert report["difference"]["turn"] == 2
    assert "seven" in report["difference"]["got"]


async def test_a_changed_log_is_found_although_every_token_is_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One byte of a sample that makes no difference to a script."""
    script = tmp_path / "script.yaml"
    script.write_text(SCRIPT)
    words = ("--config", str(SCRIPTED), "--set", f"model.script={script}")
    folder = await recorded(
        tmp_path / "kept",
        lambda time: scripted(SCRIPT, time),
        SCRIPTED,
        f"model.script={script}",
    )
    log = folder / "engine.log"
    data = bytearray(log.read_bytes())
    entries = read_log(log).entries
    sounds = [entry.pcm for entry in entries if isinstance(entry, AppendAudio)]
    loudest = max(sounds, key=lambda pcm: float(np.abs(pcm).mean()))
    data[data.index(loudest.tobytes()[:64])] ^= 1
    log.write_bytes(data)
    code, report = replayed(capsys, folder, *words)
    assert (code, report["difference"]) == (EXIT_RUNTIME, None)
    assert report["changed"].startswith("turn 1: entry ")
    assert "AppendAudio" in report["changed"]


async def test_a_call_with_the_starter_is_the_same_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every piece and every code, with the weights that are shipped."""
    # Little is made ahead, so that the reply is still being made when it is talked over.
    config = EngineConfig(max_sessions=2, linears="int8", num_threads=1, ahead_ms=200)
    overrides = ("engine.num_threads=1", "engine.ahead_ms=200")
    words = ("--config", str(STARTER), *(w for o in overrides for w in ("--set", o)))
    folder = await recorded(
        tmp_path / "kept",
        lambda time: StarterSpec(ROOT / "model" / "starter", config=config).build(time),
        STARTER,
        *overrides,
    )
    assert {Cancel, Reopen, CommitAudio, AppendText} <= commands(folder)
    code, report = replayed(capsys, folder, *words)
    assert (code, report["difference"], report["engine"]) == (0, None, [])
    assert report["tokens"] > 500
    assert report["rounded"] == 0, "nobody shared the engine"

    # Other linears are other weights.
    code, report = replayed(capsys, folder, *words, "--set", "engine.linears=dense")
    assert code == EXIT_RUNTIME
    assert report["engine"] == ["linears: then int8, now dense"]

    # A changed message, with a log that hangs together: only the tokens can tell.
    def change(entry: Any) -> Any:
        if isinstance(entry, AppendText):
            return AppendText(entry.session_id, entry.item_id, entry.role, "what is your name")
        return entry

    code, report = replayed(capsys, rewritten(folder, change), *words)
    assert (code, report["changed"]) == (EXIT_RUNTIME, None)
    assert report["difference"]["turn"] == 3
    assert "fed" in report["difference"]["what"]


SEVERAL = """
recordings: {{enabled: true, dir: {folder}/kept}}
models:
  one: {{script: {folder}/one.yaml, engine: {{placement: thread}}}}
  two: {{script: {folder}/two.yaml, aliases: [second], engine: {{placement: thread}}}}
"""


async def test_each_recording_of_several_models_is_done_again_with_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both say something else, and one was asked for by another name."""
    config = tmp_path / "several.yaml"
    config.write_text(SEVERAL.format(folder=tmp_path))
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(f"reply:\n  - say: this is {name}\n")
    settings = load_settings(config, (), {})
    async with serving(make_engines(settings), settings) as served:
        for name in ("one", "second"):
            session = {"recording": {"consent": True}}
            assert await talked(served.url, session, name) == "completed"
    recordings = [each for each in (tmp_path / "kept").iterdir() if "_" in each.name]
    models = {
        json.loads((each / "recording.json").read_text())["model"]: each for each in recordings
    }
    assert models.keys() == {"one", "two"}
    for name, folder in models.items():
        header = read_log(folder / "engine.log").header
        assert (header["model"], [*header["files"]]) == (name, [f"{name}.yaml"])
        code, report = await asyncio.to_thread(replayed, capsys, folder, "--config", str(config))
        assert (code, report["is_same"], report["engine"]) == (0, True, [])

    # A server with one model does it with that, and shows what is not the same.
    words = ("--config", str(SCRIPTED), "--set", f"model.script={tmp_path / 'one.yaml'}")
    code, report = replayed(capsys, models["two"], *words)
    assert (code, report["is_same"]) == (EXIT_RUNTIME, False)
    assert "two" in report["difference"]["expected"]

    # Of several, none is taken for another.
    other = tmp_path / "other.yaml"
    other.write_text(config.read_text().replace("two:", "three:"))
    assert main(["replay", str(models["two"]), "--config", str(other)]) == EXIT_CONFIG
    assert "the recording is of the model 'two'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("nowhere", [], "cannot be read"),
        ("", ["--set", "model.script=configs/scripts/default.yaml"], "expected a log"),
    ],
)
def test_what_cannot_be_replayed_is_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    words: list[str],
    message: str,
) -> None:
    """A folder that is none, and a file that is none."""
    (tmp_path / "engine.log").write_bytes(b"nothing of the kind")
    assert main(["replay", str(tmp_path / name), *words]) in (EXIT_CONFIG, EXIT_RUNTIME)
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_a_duplex_model_is_not_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says so before it loads anything."""
    with (tmp_path / "engine.log").open("wb") as file:
        LogWriter(file, {})
    config = str(ROOT / "configs" / "moshi-tiny.yaml")
    assert main(["replay", str(tmp_path), "--config", config]) == EXIT_CONFIG
    assert "cannot be done again" in capsys.readouterr().err
