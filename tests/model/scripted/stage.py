"""A scripted engine under a clock of the test's own."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from model.messages import Command, Open, Output, Pcm, ResponseAudio, ResponseText
from model.scripted.engine import ScriptedCore
from model.scripted.script import parse_script
from tests.fakes.checker import CheckerHere

RATE_HZ = 24_000
SESSION = "s"


@dataclass
class Stage:
    """A core whose time passes only when something is due."""

    core: ScriptedCore
    time: list[float]
    outputs: list[tuple[float, Output]] = field(default_factory=list)

    def do(self, *commands: Command) -> list[Output]:
        """Carry out commands, let everything happen that follows, and return it."""
        return [output for _, output in self.timed(*commands)]

    def timed(self, *commands: Command) -> list[tuple[float, Output]]:
        """As `do`, with the milliseconds at which each output came."""
        before = len(self.outputs)
        self.start(*commands)
        self.run(1e9)
        return self.outputs[before:]

    def start(self, *commands: Command) -> list[Output]:
        """Carry out commands and return only what follows at once."""
        made = [output for command in commands for output in self.core.apply(command)]
        self._note(made)
        return made

    def run(self, until_ms: float) -> list[Output]:
        """Let things happen until a moment, and return them."""
        made: list[Output] = []
        while (due_s := self.core.next_due_s()) is not None and due_s * 1000 <= until_ms + 1e-6:
            self.time[0] = max(self.time[0], due_s)
            tick = self.core.tick()
            self._note(tick)
            made += tick
        return made

    def _note(self, outputs: list[Output]) -> None:
        self.outputs += [(self.time[0] * 1000, output) for output in outputs]


def make_stage(
    script: str,
    *,
    instructions: str = "",
    ahead_ms: int = 1000,
    checker: CheckerHere | None = None,
) -> Stage:
    """Return a stage with one session open, in the default voice."""
    time = [0.0]
    core = ScriptedCore(
        parse_script(script, "test.yaml"),
        max_sessions=2,
        ahead_ms=ahead_ms,
        clock=lambda: time[0],
        checker=checker or CheckerHere(),
    )
    stage = Stage(core, time)
    stage.do(Open(SESSION, "alloy", instructions))
    return stage


def sound(duration_ms: int) -> Pcm:
    """Return noise, well above silence."""
    rng = np.random.default_rng(0)
    return (0.1 * rng.standard_normal(RATE_HZ * duration_ms // 1000)).astype(np.float32)


def silence(duration_ms: int) -> Pcm:
    """Return nothing to be heard."""
    return np.zeros(RATE_HZ * duration_ms // 1000, dtype=np.float32)


def text_of(outputs: list[Output]) -> str:
    """Put the words of a response together."""
    return "".join(output.text for output in outputs if isinstance(output, ResponseText))


def audio_of(outputs: list[Output]) -> Pcm:
    """Put the audio of a response together."""
    parts = [output.pcm for output in outputs if isinstance(output, ResponseAudio)]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)
