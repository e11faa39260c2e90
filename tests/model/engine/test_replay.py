"""A session that was noted can be done again, token by token, and what was changed is named."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from model.engine.core import EngineCore
from model.engine.log import Logged, loggable
from model.engine.replay import Difference, Replay, ReplayClock, Replayed
from model.messages import (
    AppendAudio,
    AppendText,
    Cancel,
    Close,
    Command,
    CommandNoted,
    CommitAudio,
    Open,
    Output,
    Recite,
    Reopen,
    Respond,
    ResponseAudio,
    ResponseDone,
    StepNoted,
    Tool,
    Truncate,
)
from model.sampling import Sampling
from model.scripted.engine import ScriptedCore
from model.scripted.script import parse_script
from model.transformer.lm import LM
from model.turns.engine import TickEngine
from tests.fakes.checker import CheckerHere

MakeEngine = Callable[..., TickEngine]
FRAME = 1280
SCRIPT = """
hear:
  - hello there
reply:
  - say: hello to you and a very good morning to you
"""


def noise(seed: int, num_frames: float, frame: int = FRAME) -> np.ndarray:
    """Return that many frames of noise."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.2, round(num_frames * frame)).astype(np.float32)


class Recorder:
    """Drive a core as an engine's thread does, and log what passes.

    Args:
        core: whose clock is `clock`.
        clock: moved on by 10 ms a tick.
    """

    def __init__(self, core: EngineCore, clock: Any) -> None:
        self.core, self.clock = core, clock
        self.log: list[Logged] = []

    def tell(self, *commands: Command) -> list[Output]:
        """Carry commands out."""
        outputs: list[Output] = []
        for command in commands:
            self.log.append(command)
            outputs += self._put_out(self.core.apply(command))
        return outputs

    def tick(self, num: int = 1) -> list[Output]:
        """Let time pass."""
        outputs: list[Output] = []
        for _ in range(num):
            outputs += self._put_out(self.core.tick())
            self.clock.now_s += 0.01
        return outputs

    def until(self, is_there: Callable[[Output], bool], num: int = 1) -> None:
        """Let time pass until an output has come so often."""
        for _ in range(5000):
            num -= sum(map(is_there, self.tick()))
            if num <= 0:
                return
        raise AssertionError("it never comes")

    def _put_out(self, outputs: Sequence[Output]) -> Sequence[Output]:
        self.log += map(loggable, outputs)
        return outputs


def is_audio(output: Output) -> bool:
    """Say whether it is sound."""
    return isinstance(output, ResponseAudio)


def is_done(output: Output) -> bool:
    """Say whether it ends a response."""
    return isinstance(output, ResponseDone)


def talk(recorder: Recorder, *, frame: int = FRAME, session: str = "s", voice: str = "ann") -> None:
    """Hold a conversation with everything in it that a client can do."""
    recorder.tell(Open(session, voice, is_noted=True))
    recorder.tick(3)
    # A spoken turn, committed in a pause that was none, with the reply begun; then for good.
    recorder.tell(AppendAudio(session, noise(1, 4, frame)))
    recorder.tick(2)
    recorder.tell(CommitAudio(session, "u1", is_tentative=True), Respond(session, 1, "a1"))
    recorder.until(is_audio)
    recorder.tell(Reopen(session, "u1"), AppendAudio(session, noise(2, 3.3, frame)))
    recorder.tick(4)
    recorder.tell(CommitAudio(session, "u1b"), Respond(session, 2, "a2"))
    # The user talks over the reply.
    recorder.until(is_audio, 2)
    recorder.tell(Cancel(session, 2), Truncate(session, "a2", 100))
    recorder.tell(AppendAudio(session, noise(3, 2.5, frame)))
    recorder.tick(5)
    recorder.tell(CommitAudio(session, "u2"), Respond(session, 3, "a3"))
    recorder.until(is_done)
    # A typed turn, answered in writing.
    recorder.tell(
        AppendText(session, "u3", "user", "w1 w2"), Respond(session, 4, "a4", audio=False)
    )
    recorder.until(is_done)


@pytest.fixture
def recorded(make_engine: MakeEngine, clock: Any) -> list[Logged]:
    """Return the log of a conversation with a tiny model."""
    recorder = Recorder(make_engine(), clock)
    talk(recorder)
    return recorder.log


@pytest.fixture
def replay(make_engine: MakeEngine) -> Callable[[Sequence[Logged]], Replayed]:
    """Return what does a log again, in an engine of its own."""

    def run(log: Sequence[Logged], **settings: Any) -> Replayed:
        clock = ReplayClock()
        engine = make_engine(**settings)
        engine._clock = clock
        return Replay(engine, clock).run(log)

    return run


def test_a_conversation_is_the_same_again(
    recorded: list[Logged], replay: Callable[..., Replayed]
) -> None:
    """Every command, step, token and output, and the sound to the bit."""
    done = replay(recorded)
    assert done.difference is None
    assert (done.sessions, done.turns, done.skipped) == (1, 3, 0)
    assert done.steps == sum(isinstance(entry, StepNoted) for entry in recorded)
    assert done.commands == sum(isinstance(entry, CommandNoted) for entry in recorded)
    assert done.tokens > 100
    assert (done.sounds > 0, done.rounded) == (True, 0)


def test_seeds_are_those_of_the_recording(
    make_engine: MakeEngine, clock: Any, replay: Callable[..., Replayed]
) -> None:
    """Sessions that were opened before changed the seed, and it is noted."""
    sampled = Sampling(temperature=1.0, top_k=8)
    settings = {"reply_sampling": sampled, "audio_sampling": sampled}
    engine = make_engine(**settings)
    for _ in range(3):
        engine.apply(Open("before", "bob"))
        engine.apply(Close("before"))
    recorder = Recorder(engine, clock)
    talk(recorder)
    note = next(entry for entry in recorder.log if isinstance(entry, CommandNoted))
    assert note.seed == engine.config.seed + 3
    assert replay(recorder.log, **settings).difference is None
    other = [
        replace(entry, seed=entry.seed + 1) if isinstance(entry, CommandNoted) else entry
        for entry in recorder.log
    ]
    assert replay(other, **settings).difference is not None


def test_who_shares_the_engine_does_not_matter(
    make_engine: MakeEngine, clock: Any, replay: Callable[..., Replayed]
) -> None:
    """What others do beside it, and a beginning that the engine knows, are not in the log."""
    engine = make_engine(max_sessions=2)
    beside = Recorder(engine, clock)
    beside.tell(Open("other", "ann"), AppendAudio("other", noise(9, 60)))
    recorder = Recorder(engine, clock)
    talk(recorder)
    mine = [entry for entry in recorder.log if entry.session_id == "s"]
    done = replay(mine)
    assert done.difference is None
    assert max(entry.rows for entry in mine if isinstance(entry, StepNoted)) == 2


def test_a_conversation_that_is_told_anew_is_two_sessions(
    make_engine: MakeEngine, clock: Any, replay: Callable[..., Replayed]
) -> None:
    """The gateway closes and opens again, and the next commands are sent before that is noted."""
    recorder = Recorder(make_engine(), clock)
    talk(recorder)
    recorder.tell(Close("s"))
    talk(recorder)
    done = replay(recorder.log)
    assert done.difference is None
    assert (done.sessions, done.turns) == (2, 6)


def crossed(log: Sequence[Logged]) -> Iterator[Logged]:
    """Yield a log as a gateway may see it: every command long before it is carried out."""
    yield from (entry for entry in log if isinstance(entry, Command))
    yield from (entry for entry in log if not isinstance(entry, Command))


def test_commands_and_notes_may_cross(
    make_engine: MakeEngine, clock: Any, replay: Callable[..., Replayed]
) -> None:
    """The gateway sends ahead of what the engine carries out."""
    recorder = Recorder(make_engine(), clock)
    recorder.tell(Open("s", "ann"))
    recorder.tell(Close("s"))
    talk(recorder)
    recorder.tell(Close("s"))
    talk(recorder)
    assert replay([*crossed(recorder.log)]).difference is None


def test_a_session_whose_beginning_is_not_there_is_skipped(
    recorded: list[Logged], replay: Callable[..., Replayed]
) -> None:
    """It cannot be done again, and that is no difference."""
    is_open = [isinstance(entry, Open) for entry in recorded].index(True)
    done = replay(recorded[is_open + 2 :])
    assert (done.sessions, done.difference) == (0, None)


def named(done: Replayed) -> Difference:
    """Return the difference that was found."""
    assert done.difference is not None
    return done.difference


def test_a_changed_weight_is_found(recorded: list[Logged], make_engine: MakeEngine, lm: LM) -> None:
    """One tensor of many is enough."""
    clock = ReplayClock()
    engine = make_engine()
    engine._clock = clock
    other = copy.deepcopy(lm)
    with torch.no_grad():
        next(other.parameters()).add_(0.5)
    engine._runner._lm = other
    difference = named(Replay(engine, clock).run(recorded))
    assert difference.session_id == "s"
    assert difference.expected != difference.got


@pytest.mark.parametrize(
    ("item_id", "turn"),
    [("u1b", 1), ("u2", 2)],
)
def test_changed_sound_is_named_by_turn(
    recorded: list[Logged], replay: Callable[..., Replayed], item_id: str, turn: int
) -> None:
    """Sound belongs to the turn that it becomes."""
    commit = next(
        i for i, e in enumerate(recorded) if isinstance(e, CommitAudio) and e.item_id == item_id
    )
    at = max(i for i, e in enumerate(recorded[:commit]) if isinstance(e, AppendAudio))
    log = [*recorded]
    changed = log[at]
    assert isinstance(changed, AppendAudio)
    log[at] = replace(changed, pcm=np.zeros_like(changed.pcm))
    difference = named(replay(log))
    assert difference.turn == turn
    assert "heard" in difference.what
    assert str(difference).startswith(f"turn {turn}")


def test_changed_words_are_named_by_turn_and_item(
    recorded: list[Logged], replay: Callable[..., Replayed]
) -> None:
    """A typed turn, and the reply that was asked for."""
    log = [
        replace(entry, text="w5 w2") if isinstance(entry, AppendText) else entry
        for entry in recorded
    ]
    difference = named(replay(log))
    assert (difference.turn, difference.item_id) == (3, "a4")
    assert "fed" in difference.what


def test_changed_outputs_and_steps_are_found(
    recorded: list[Logged], replay: Callable[..., Replayed]
) -> None:
    """Missing ones, new ones, and other pieces."""
    done = min(i for i, e in enumerate(recorded) if isinstance(e, ResponseDone))
    without = [*recorded[:done], *recorded[done + 1 :]]
    assert named(replay(without)).what == "an output is new"
    step = max(i for i, e in enumerate(recorded) if isinstance(e, StepNoted))
    note = recorded[step]
    assert isinstance(note, StepNoted)
    assert replay([*recorded, *[note] * 20]).difference is not None
    other = [*recorded]
    other[step] = replace(note, pieces=(1,), rows=3)
    assert "shared by 3 sessions" in named(replay(other)).what


@pytest.mark.parametrize("num", [1, 2, 5, 17, 40])
def test_a_log_may_end_anywhere(
    recorded: list[Logged], replay: Callable[..., Replayed], num: int
) -> None:
    """A client hangs up, or the server dies, between a step and what followed from it."""
    assert replay(recorded[:-num]).difference is None


def test_calls_are_the_same_again(
    make_engine: MakeEngine, clock: Any, replay: Callable[..., Replayed]
) -> None:
    """Whose arguments another process checks."""
    recorder = Recorder(make_engine(), clock)
    recorder.tell(Open("s", "ann", is_noted=True), AppendText("s", "u1", "user", "w1"))
    schema = '{"properties": {"a": {"type": "integer"}}, "required": ["a"]}'
    tools = (Tool("w1", "", schema), Tool("w3", "", "{}"))
    recorder.tell(Respond("s", 1, "a1", tools=tools, tool_choice="required"))
    recorder.until(is_done)
    assert replay(recorder.log).difference is None


def recite(recorder: Recorder, voice: str = "ann") -> None:
    """Have words said that come in pieces, and talk over the rest of others."""
    recorder.tell(Open("s", voice, is_noted=True), AppendText("s", "u1", "user", "w1"))
    recorder.tell(Respond("s", 1, "a1", recites=True), Recite("s", 1, "w1 w2"))
    recorder.tick(3)
    recorder.tell(Recite("s", 1, " w3", is_last=True))
    recorder.until(is_done)
    recorder.tell(AppendText("s", "u2", "user", "w2"), Respond("s", 2, "a2", recites=True))
    recorder.tell(Recite("s", 2, "w3 w2 w1 w2 w3", is_last=True))
    recorder.until(is_audio)
    recorder.tell(Cancel("s", 2), Truncate("s", "a2", 40), Recite("s", 2, " w1"))
    recorder.tell(AppendText("s", "u3", "user", "w3"), Respond("s", 3, "a3"))
    recorder.until(is_done)


def test_what_is_recited_is_the_same_again(
    make_engine: MakeEngine, clock: Any, replay: Callable[..., Replayed]
) -> None:
    """Its words come from elsewhere, whenever they do."""
    recorder = Recorder(make_engine(), clock)
    recite(recorder)
    done = replay(recorder.log)
    assert done.difference is None
    assert (done.turns, done.skipped) == (3, 0)
    other = [
        replace(entry, text="w2 w2") if isinstance(entry, Recite) else entry
        for entry in recorder.log
    ]
    assert replay(other).difference is not None


def test_what_a_script_recites_is_the_same_again(clock: Any) -> None:
    """It follows the words, and not the script."""
    recorder = Recorder(scripted(clock), clock)
    recite(recorder, recorder.core.info.voices[0])
    again = ReplayClock()
    done = Replay(scripted(again), again).run(recorder.log)
    assert (done.difference, done.turns) == (None, 3)


def scripted(clock: Any) -> ScriptedCore:
    """Return the core of a scripted engine."""
    script = parse_script(SCRIPT, "test")
    checker = CheckerHere()
    return ScriptedCore(script, max_sessions=2, ahead_ms=300, clock=clock, checker=checker)


def test_a_script_is_the_same_again(clock: Any) -> None:
    """It has no steps, but outputs in time: barge-in finds the reply as far as it was."""
    recorder = Recorder(scripted(clock), clock)
    talk(recorder, frame=1920, voice=recorder.core.info.voices[0])
    again = ReplayClock()
    done = Replay(scripted(again), again).run(recorder.log)
    assert done.difference is None
    assert (done.turns, done.rounded) == (3, 0)
    assert done.sounds > 5
    log = [
        replace(entry, text="what") if isinstance(entry, AppendText) else entry
        for entry in recorder.log
        if not isinstance(entry, Truncate)
    ]
    other = ReplayClock()
    assert Replay(scripted(other), other).run(log).difference is not None


def test_what_nobody_asked_to_note_is_not_noted(make_engine: MakeEngine, clock: Any) -> None:
    """It costs nothing where it is not wanted."""
    recorder = Recorder(make_engine(), clock)
    recorder.tell(Open("s", "ann"), AppendAudio("s", noise(1, 3)))
    recorder.tick(20)
    assert not [e for e in recorder.log if isinstance(e, CommandNoted | StepNoted)]
