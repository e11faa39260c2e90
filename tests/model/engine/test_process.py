"""The engine's process: supervised, bounded, replaced when it dies, and never left behind."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from queue import Queue
from threading import Event
from time import monotonic
from typing import Any, NoReturn

import numpy as np
import pytest

from model.assemble.spec import ScriptedSpec
from model.engine import process
from model.engine.core import CoreSpec
from model.engine.process import ProcessEngine, RestartPolicy
from model.errors import ConfigError, EngineError, OverloadedError, ScriptError, WeightsError
from model.messages import (
    AppendAudio,
    AppendText,
    Close,
    Command,
    EngineBack,
    EngineGone,
    EngineLost,
    EngineSilent,
    News,
    Open,
    Output,
    Respond,
    ResponseAudio,
    ResponseDone,
    ResponseText,
    SessionFailed,
)
from tests.server.fakes import INFO, EchoCore, EchoSpec

ROOT = Path(__file__).resolve().parents[3]
_WAIT_S = 60.0
_AT_ONCE = RestartPolicy(delays_s=(0.0, 0.0))

Outputs = Queue[Output | News]
MakeEngine = Callable[..., ProcessEngine]


@pytest.fixture
def make() -> Iterator[MakeEngine]:
    """Return a maker of engines that are stopped after the test."""
    made: list[ProcessEngine] = []

    def make_engine(
        spec: CoreSpec | None = None, policy: RestartPolicy = _AT_ONCE
    ) -> ProcessEngine:
        made.append(ProcessEngine(spec or EchoSpec(), policy))
        return made[-1]

    yield make_engine
    for engine in made:
        engine.stop()


def _wait_for(outputs: Outputs, kind: type) -> Any:
    while True:
        output = outputs.get(timeout=_WAIT_S)
        if isinstance(output, kind):
            return output


def _kill(engine: ProcessEngine, number: int = signal.SIGKILL) -> None:
    assert engine.process_id is not None
    os.kill(engine.process_id, number)


def _ask(engine: ProcessEngine, outputs: Outputs, text: str, turn: int = 1) -> str:
    """Type a turn and return the reply's words."""
    engine.submit(AppendText("s", f"u{turn}", "user", text))
    engine.submit(Respond("s", turn, f"a{turn}", audio=False))
    words = []
    while not isinstance(output := outputs.get(timeout=_WAIT_S), ResponseDone):
        if isinstance(output, ResponseText):
            words.append(output.text)
    return "".join(words)


def test_a_conversation_through_two_processes(
    make: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """Commands and outputs cross in order; Ctrl-C is not the child's business; the end is clean."""
    caplog.set_level("INFO")
    engine, outputs = make(), Outputs()
    assert engine.info == INFO
    engine.start(outputs.put)
    process_id = engine.process_id
    assert process_id is not None
    assert f"the engine runs in process {process_id}" in caplog.messages  # for whoever looks for it
    assert Path(f"/proc/{process_id}/comm").read_text().strip() == "parley-engine"
    _kill(engine, signal.SIGINT)
    engine.submit(Open("s", "amber"))
    assert _ask(engine, outputs, "hello") == "you said hello"
    assert _ask(engine, outputs, "again", turn=2) == "you said hello, again"
    engine.submit(Respond("s", 3, "a3"))
    assert _wait_for(outputs, ResponseAudio).pcm.tolist() == [0.25] * INFO.frame_samples
    _wait_for(outputs, ResponseDone)
    deadline_s = monotonic() + _WAIT_S
    while engine.metrics.steps < 6:
        assert monotonic() < deadline_s, engine.metrics
        Event().wait(0.01)
    with pytest.raises(EngineError, match="runs already"):
        engine.start(outputs.put)

    engine.stop()
    assert not Path(f"/proc/{process_id}").exists()
    # It can be started again, with nobody in it.
    engine.start(outputs.put)
    engine.submit(Open("s", "amber"))
    assert _ask(engine, outputs, "hello") == "you said hello"


def test_sessions_are_counted_on_this_side(make: MakeEngine) -> None:
    """Admission is decided when asked; closed, failed and lost sessions make room.

    A receiver that raises costs its own output and nothing else.
    """
    engine, outputs = make(), Outputs()

    def deliver(output: Output | News) -> None:
        outputs.put(output)
        raise ValueError("not my day")

    engine.start(deliver)
    engine.submit(Open("a", "amber"))
    engine.submit(Open("b", "amber", instructions="fail"))
    with pytest.raises(OverloadedError, match="all 2 sessions"):
        engine.submit(Open("c", "amber"))
    with pytest.raises(EngineError, match="open already"):
        engine.submit(Open("a", "amber"))
    engine.submit(Respond("b", 1, "x"))
    assert _wait_for(outputs, SessionFailed).session_id == "b"
    engine.submit(Close("a"))
    engine.submit(Open("a", "amber"))
    engine.submit(Open("c", "amber"))
    _kill(engine)
    assert _wait_for(outputs, EngineBack)
    engine.submit(Open("d", "amber"))
    engine.submit(Open("e", "amber"))


def test_killed_again_and_again(make: MakeEngine) -> None:
    """Each death is told and made good, until there were too many in a row."""
    engine, outputs = make(), Outputs()
    engine.start(outputs.put)
    for _ in range(2):
        engine.submit(Open("s", "amber"))
        assert _ask(engine, outputs, "hello") == "you said hello"
        _kill(engine)
        lost = _wait_for(outputs, EngineLost)
        assert "was killed by SIGKILL" in lost.message
        assert _wait_for(outputs, EngineBack)
    _kill(engine)
    assert _wait_for(outputs, EngineLost)
    assert isinstance(outputs.get(timeout=_WAIT_S), EngineGone)
    # Nobody is there to take anything, and nobody minds.
    engine.submit(Open("s", "amber"))
    engine.submit(AppendText("s", "u", "user", "hello"))


def test_an_engine_that_ran_for_long_begins_anew(make: MakeEngine) -> None:
    """Deaths far apart are no crash loop."""
    engine, outputs = make(policy=RestartPolicy(delays_s=(0.0,), steady_s=0.0)), Outputs()
    engine.start(outputs.put)
    for _ in range(2):
        _kill(engine)
        assert _wait_for(outputs, EngineBack)


def test_a_crash_loop(make: MakeEngine, tmp_path: Path) -> None:
    """An engine that dies at every start is given up."""
    poison = tmp_path / "poison"
    engine, outputs = make(EchoSpec(poison)), Outputs()
    engine.start(outputs.put)
    poison.touch()
    _kill(engine)
    assert _wait_for(outputs, EngineLost)
    assert isinstance(outputs.get(timeout=_WAIT_S), EngineGone)


def test_stopped_while_it_is_away(make: MakeEngine) -> None:
    """A long delay before the next start does not hold up the end."""
    engine, outputs = make(policy=RestartPolicy(delays_s=(3600.0,))), Outputs()
    engine.start(outputs.put)
    _kill(engine)
    assert _wait_for(outputs, EngineLost)
    engine.stop()
    assert outputs.empty()


@dataclass(frozen=True)
class FailingSpec:
    """Fail at the start: as our own errors, as others', or by dying."""

    how: str

    def build(self) -> EchoCore:
        """Fail, or return what fails later."""
        match self.how:
            case "weights":
                raise WeightsError("model.safetensors: no tensor 'x'")
            case "foreign":
                raise ZeroDivisionError("division by zero")
            case "exit":
                os._exit(7)
            case _:
                return ColdCore()


class ColdCore(EchoCore):
    """Refuse to be warmed up."""

    def warm_up(self) -> NoReturn:
        """Fail."""
        raise ConfigError("no such instruction on this machine")


def test_what_goes_wrong_at_the_start_is_raised_here(make: MakeEngine, tmp_path: Path) -> None:
    """The same errors with the same words as in one process, whatever it was."""
    missing = tmp_path / "script.yaml"
    cases: list[tuple[CoreSpec, type[Exception], str]] = [
        (FailingSpec("weights"), WeightsError, r"^model\.safetensors: no tensor 'x'$"),
        (FailingSpec("foreign"), EngineError, "ZeroDivisionError: division by zero"),
        (FailingSpec("exit"), EngineError, "exited with code 7 before it was ready"),
        (ScriptedSpec(missing, max_sessions=1, ahead_ms=1), ScriptError, f"^{missing}: .*"),
    ]
    engines = [make(spec) for spec, _, _ in cases]
    for engine, (_, error, match) in zip(engines, cases, strict=True):
        with pytest.raises(error, match=match) as caught:
            _ = engine.info
        assert type(caught.value) is error


def test_an_engine_that_cannot_run(make: MakeEngine) -> None:
    """Warming up fails as it does on a thread, and leaves nothing behind."""
    engine = make(FailingSpec("cold"))
    with pytest.raises(EngineError, match="could not be started") as caught:
        engine.start(lambda _: None)
    assert isinstance(caught.value.__cause__, ConfigError)
    assert engine.process_id is None


def _taken(submit: Callable[[], None]) -> int:
    """Count how often something can be done until it is too much."""
    for number in count():
        try:
            submit()
        except OverloadedError as error:
            assert "8 commands of this session wait" in str(error)  # noqa: PT017 - it comes some time, not at once
            return number
    raise AssertionError


def test_a_child_that_stalls(make: MakeEngine) -> None:
    """Commands to it are bounded and nobody waits; when it goes on, none was lost."""
    engine, outputs = make(EchoSpec(max_queued_commands=8)), Outputs()
    engine.start(outputs.put)
    engine.submit(Open("s", "amber"))
    _kill(engine, signal.SIGSTOP)
    pcm = np.zeros(160_000, dtype=np.float32)
    num_taken = _taken(lambda: engine.submit(AppendAudio("s", pcm)))
    assert 8 <= num_taken < 20, "the connection's own buffers are small"
    _kill(engine, signal.SIGCONT)
    heard_ms = 0
    while heard_ms < num_taken * 10_000:
        heard_ms = getattr(outputs.get(timeout=_WAIT_S), "audio_ms", heard_ms)
    engine.submit(AppendText("s", "u", "user", "hello"))
    engine.submit(Close("s"))


class StuckCore(EchoCore):
    """Never come back from a certain turn, or die of one."""

    def apply(self, command: Command) -> list[Output]:
        """Carry out a command, or hang."""
        if isinstance(command, AppendText) and command.text == "hang":
            Event().wait()
        if isinstance(command, AppendText) and command.text == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().apply(command)


@dataclass(frozen=True)
class StuckSpec:
    """Build an engine that can hang."""

    def build(self) -> EchoCore:
        """Return it."""
        return StuckCore()


def test_an_engine_that_hangs(make: MakeEngine) -> None:
    """Whether its thread is stuck or the whole process: it is killed, and another one serves."""
    policy = RestartPolicy(delays_s=(0.0, 0.0), doubt_s=1.0, hang_s=2.5)
    engine, outputs = make(StuckSpec(), policy), Outputs()
    engine.start(outputs.put)
    engine.submit(Open("s", "amber"))
    engine.submit(Open("other", "amber"))
    engine.submit(AppendText("s/resp_1", "u", "user", "hello"))
    engine.submit(AppendText("s", "u", "user", "hang"))
    assert _wait_for(outputs, EngineSilent)
    lost = _wait_for(outputs, EngineLost)
    assert "killed by SIGKILL" in lost.message
    assert lost.culprit == "s"
    _wait_for(outputs, EngineBack)
    _kill(engine, signal.SIGSTOP)
    assert "killed by SIGKILL" in _wait_for(outputs, EngineLost).message
    _wait_for(outputs, EngineBack)
    engine.submit(Open("s", "amber"))
    assert _ask(engine, outputs, "hello")


def test_a_session_that_an_engine_dies_of(make: MakeEngine) -> None:
    """Once may be a coincidence; the second time it is the one to blame. Nobody else ever is."""
    engine, outputs = make(StuckSpec()), Outputs()
    engine.start(outputs.put)
    culprits = []
    for _ in range(2):
        engine.submit(Open("other", "amber"))
        engine.submit(Open("s", "amber"))
        engine.submit(AppendText("s", "u", "user", "die"))
        culprits.append(_wait_for(outputs, EngineLost).culprit)
        _wait_for(outputs, EngineBack)
    assert culprits == ["", "s"]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_no_descriptors_are_no_failed_start(
    number: int, make: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Peers have them, and give them back: there is one try, and it waits until it can be made."""
    engine, outputs = make(policy=RestartPolicy(delays_s=(0.0,))), Outputs()
    engine.start(outputs.put)
    tries, child = count(), process._Child

    def launched(spec: CoreSpec, policy: RestartPolicy) -> Any:
        if next(tries) < 3:
            raise OSError(number, "no descriptors")
        return child(spec, policy)

    monkeypatch.setattr(process, "_Child", launched)
    monkeypatch.setattr(process, "_DESCRIPTORS_WAIT_S", 0.0)
    _kill(engine)
    _wait_for(outputs, EngineLost)
    _wait_for(outputs, EngineBack)
    assert next(tries) == 4


def test_what_else_keeps_an_engine_from_starting_is_a_failed_start(
    make: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as no memory: after the last try it is given up."""
    engine, outputs = make(policy=RestartPolicy(delays_s=(0.0, 0.0))), Outputs()
    engine.start(outputs.put)
    tries = count()

    def launched(spec: CoreSpec, policy: RestartPolicy) -> Any:
        del spec, policy
        raise OSError(errno.ENOMEM, f"no memory, try {next(tries)}")

    monkeypatch.setattr(process, "_Child", launched)
    _kill(engine)
    _wait_for(outputs, EngineGone)
    assert next(tries) == 2


@dataclass(frozen=True)
class SlowSpec:
    """Never finish loading."""

    def build(self) -> EchoCore:
        """Wait for ever."""
        Event().wait()
        raise AssertionError


def test_loading_has_a_limit_of_its_own(make: MakeEngine) -> None:
    """It is longer than that of an engine that serves, and says what happened."""
    engine = make(SlowSpec(), RestartPolicy(loading_s=3.0))
    with pytest.raises(EngineError, match="not ready within 3 s"):
        _ = engine.info


_PARENT = """
import sys
from tests.server.fakes import EchoSpec
from model.engine.process import ProcessEngine

if __name__ == "__main__":
    engine = ProcessEngine(EchoSpec())
    engine.start(lambda output: None)
    print(engine.process_id, flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux to watch another's child")
def test_no_child_outlives_its_parent(tmp_path: Path) -> None:
    """However the parent ends: here, by SIGKILL."""
    (tmp_path / "parent.py").write_text(_PARENT)
    with subprocess.Popen(
        [sys.executable, tmp_path / "parent.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        try:
            parent.kill()
            ended, _, _ = select.select([child], [], [], _WAIT_S)
        finally:
            os.close(child)
    assert ended == [child], "the child is gone"
