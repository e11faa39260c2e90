"""The engine's thread: bounded, contained, and gone after `stop`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import Queue
from time import monotonic
from typing import Any

import numpy as np
import pytest

from model.codec.mel import MelCodec
from model.engine.config import EngineConfig
from model.engine.local import LocalEngine
from model.errors import EngineError, OverloadedError
from model.messages import (
    AppendAudio,
    AppendText,
    Cancel,
    Close,
    CommitAudio,
    InputTranscript,
    Open,
    Output,
    Respond,
    ResponseDone,
    SessionFailed,
    Taken,
)
from model.scripted.script import parse_script
from model.transformer.lm import LM
from model.turns.engine import TickEngine
from model.turns.steps import TurnLimits
from model.vocabulary import TurnVocabulary
from tests.fakes.scripted import scripted_engine

_WAIT_S = 60.0


def _runner_of(engine: LocalEngine) -> Any:
    """Return what runs the model, to break it."""
    core: Any = engine._core
    return core._runner


@pytest.fixture
def make_local(
    lm: LM, codec: MelCodec, vocabulary: TurnVocabulary
) -> Iterator[Callable[..., LocalEngine]]:
    """Return a maker of engines that are stopped after the test."""
    made = []
    limits = TurnLimits(
        max_transcript_pieces=2, max_reply_pieces=2, frames_per_piece=1, max_tail_frames=1
    )

    def make(**settings: int) -> LocalEngine:
        config = EngineConfig(**settings)  # type: ignore[arg-type]  # test shorthand
        core = TickEngine(lm, codec, vocabulary, config, clock=monotonic, limits=limits)
        made.append(LocalEngine(core))
        return made[-1]

    yield make
    for engine in made:
        engine.stop()


def wait_for(outputs: Queue[Output], kind: type) -> Any:
    """Return the next output of a kind."""
    while True:
        output = outputs.get(timeout=_WAIT_S)
        if isinstance(output, kind):
            return output


def test_thread_serves_a_turn_and_ends(make_local: Callable[..., LocalEngine]) -> None:
    """Commands from one thread, outputs on another, and no thread after the stop."""
    engine, outputs = make_local(), Queue[Output]()
    threads = set()

    def deliver(output: Output) -> None:
        threads.add(threading.current_thread().name)
        outputs.put(output)

    before = threading.active_count()
    engine.start(deliver)
    engine.submit(Open("s", "ann"))
    engine.submit(AppendAudio("s", np.zeros(3000, dtype=np.float32)))
    engine.submit(CommitAudio("s", "u"))
    engine.submit(Respond("s", 1, "a"))
    assert wait_for(outputs, InputTranscript).item_id == "u"
    assert wait_for(outputs, ResponseDone).turn == 1
    assert threads == {"engine"}
    engine.stop()
    assert threading.active_count() == before
    # It can be started again, with nobody in it.
    engine.start(deliver)
    engine.submit(Open("s", "ann"))
    engine.submit(Respond("s", 1, "a"))
    assert wait_for(outputs, ResponseDone).turn == 1


def test_two_starts_are_one_too_many(make_local: Callable[..., LocalEngine]) -> None:
    """One thread owns the model."""
    engine = make_local()
    engine.start(lambda _: None)
    with pytest.raises(EngineError):
        engine.start(lambda _: None)


def test_refuses_sessions_beyond_capacity(make_local: Callable[..., LocalEngine]) -> None:
    """Admission is decided when asked, and a closed session makes room at once."""
    engine = make_local(max_sessions=2)
    engine.submit(Open("a", "ann"))
    engine.submit(Open("b", "ann"))
    with pytest.raises(OverloadedError):
        engine.submit(Open("c", "ann"))
    with pytest.raises(EngineError):
        engine.submit(Open("a", "ann"))
    engine.submit(Close("a"))
    engine.submit(Open("c", "ann"))


def test_queue_is_bounded_but_takes_what_makes_it_shorter(
    make_local: Callable[..., LocalEngine],
) -> None:
    """A full queue refuses work; it never refuses to stop some."""
    engine = make_local(max_queued_commands=3)
    engine.submit(Open("s", "ann"))
    for number in range(2):
        engine.submit(AppendText("s", f"u{number}", "user", "w1"))
    with pytest.raises(OverloadedError):
        engine.submit(AppendText("s", "u3", "user", "w1"))
    engine.submit(Open("t", "ann"))  # another session's is another queue
    engine.submit(Cancel("s", 1))
    engine.submit(Close("s"))


def test_failed_session_makes_room(make_local: Callable[..., LocalEngine]) -> None:
    """A lost session's place can be taken again, under the same name even."""
    engine, outputs = make_local(max_sessions=1), Queue[Output]()
    engine.start(outputs.put)
    engine.submit(Open("s", "ann"))
    engine.submit(Respond("s", 1, "a", voice="nobody"))
    assert wait_for(outputs, SessionFailed).session_id == "s"
    engine.submit(Respond("s", 2, "b"))  # ignored: it was on its way
    engine.submit(Open("s", "ann"))
    engine.submit(Respond("s", 3, "c"))
    assert wait_for(outputs, ResponseDone).turn == 3


def test_crash_ends_the_session_that_was_served(
    make_local: Callable[..., LocalEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a step breaks, whoever it was taken for hears of it, and nobody else."""
    engine, outputs = make_local(max_sessions=2), Queue[Output]()
    engine.start(outputs.put)
    engine.submit(Open("a", "ann"))
    engine.submit(Open("b", "ann"))
    runner = _runner_of(engine)
    step = runner.step

    def broken(_requests: object) -> None:
        monkeypatch.setattr(runner, "step", step)
        raise RuntimeError("out of range")

    monkeypatch.setattr(runner, "step", broken)
    engine.submit(Respond("a", 1, "x"))
    assert wait_for(outputs, SessionFailed).session_id == "a"
    engine.submit(Respond("b", 1, "x"))
    assert wait_for(outputs, ResponseDone).session_id == "b"


def test_engine_on_which_nothing_works_starts_over(
    make_local: Callable[..., LocalEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If every step breaks, whoever it is for, all sessions are lost and new ones are served."""
    engine, outputs = make_local(max_sessions=5), Queue[Output]()
    engine.start(outputs.put)
    names = ["a", "b", "c", "d", "e"]
    for name in names:
        engine.submit(Open(name, "ann"))
    runner = _runner_of(engine)
    step = runner.step

    def broken(_requests: object) -> None:
        raise RuntimeError("the device is on fire")

    monkeypatch.setattr(runner, "step", broken)
    for name in names[:3]:
        engine.submit(Respond(name, 1, "x"))
        assert wait_for(outputs, SessionFailed).session_id == name
    engine.submit(Respond("d", 1, "x"))
    assert {wait_for(outputs, SessionFailed).session_id for _ in range(2)} == {"d", "e"}
    monkeypatch.setattr(runner, "step", step)
    engine.submit(Open("a", "ann"))
    engine.submit(Respond("a", 1, "x"))
    assert wait_for(outputs, ResponseDone).session_id == "a"


def test_model_that_cannot_run_is_noticed_at_the_start(
    make_local: Callable[..., LocalEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readiness is shown by a conversation; without it the start fails and leaves no thread."""
    engine = make_local()

    def broken(_requests: object) -> None:
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(_runner_of(engine), "step", broken)
    before = threading.active_count()
    with pytest.raises(EngineError) as caught:
        engine.start(lambda _: None)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert threading.active_count() == before


def test_receiver_that_raises_does_not_hurt(make_local: Callable[..., LocalEngine]) -> None:
    """What goes wrong at the receiver's costs the receiver that output, and nobody else."""
    engine, outputs = make_local(), Queue[Output]()

    def deliver(output: Output) -> None:
        outputs.put(output)
        raise ValueError("not my day")

    engine.start(deliver)
    engine.submit(Open("s", "ann"))
    engine.submit(Respond("s", 1, "a"))
    assert wait_for(outputs, ResponseDone).turn == 1


def test_what_is_heavy_is_reported_at_once() -> None:
    """A session that waits until its few long texts or pictures were taken is told so."""
    outputs: Queue[Output] = Queue()
    engine = scripted_engine(
        parse_script("reply: [{say: hi}]", "test"), max_sessions=1, ahead_ms=1_000
    )
    engine.start(outputs.put)
    try:
        picture = np.zeros((200, 200, 3), dtype=np.uint8)
        engine.submit(Open("s", "alloy"))
        engine.submit(AppendText("s", "a", "user", "short"))
        engine.submit(AppendText("s", "b", "user", "", (picture,)))
        taken = wait_for(outputs, Taken)
        while taken.num_commands < 3:
            taken = Taken("s", taken.num_commands + wait_for(outputs, Taken).num_commands)
        engine.submit(AppendText("s", "c", "user", "w" * 60_000))
        assert wait_for(outputs, Taken).num_commands == 1
    finally:
        engine.stop()
