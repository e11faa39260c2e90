"""The engine proper: batching changes nothing, sessions do not touch each other, audio is paced."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.messages import (
    AppendAudio,
    AppendText,
    CallArguments,
    CallDone,
    CallStarted,
    Cancel,
    CheckTurn,
    ClearAudio,
    Close,
    Command,
    CommitAudio,
    EndOfTurn,
    InputTranscript,
    InputTranscriptDelta,
    Open,
    Output,
    Pixels,
    Reopen,
    Respond,
    ResponseAudio,
    ResponseDone,
    ResponseStarted,
    ResponseText,
    SessionFailed,
    Tool,
    Truncate,
    TurnChecked,
)
from model.sampling import GREEDY, Sampling
from model.turns.engine import TickEngine
from model.turns.history import History
from model.turns.phase import Phase
from model.turns.runner import Request, _to_steps
from model.turns.slot import Urgency
from model.turns.steps import NextSteps

MakeEngine = Callable[..., TickEngine]
FRAME = 1280
LIVE = (InputTranscriptDelta, EndOfTurn)
SAMPLED = Sampling(temperature=1.0, top_k=8)
SCHEMA = """{
    "properties": {
        "a": {"type": "string", "maxLength": 9},
        "b": {"type": "integer"},
        "c": {"enum": ["w1", "w2", "w3 w4"]}
    },
    "required": ["a", "b", "c"]
}"""
TOOLS = (Tool("w1 w2", "", SCHEMA), Tool("w1", "", SCHEMA), Tool("w3", "", "{}"))


def noise(seed: int, num_frames: float) -> np.ndarray:
    """Return that many frames of noise."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.2, round(num_frames * FRAME)).astype(np.float32)


def picture(seed: int) -> Pixels:
    """Return a picture of noise."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (12, 9, 3), dtype=np.uint8)


@dataclass(frozen=True)
class Pause:
    """A silence that might have been the end of a turn, and was not.

    Attributes:
        at: append after which it comes.
        num_ticks: how long it takes until the user goes on; -1 if no tick comes in between.
        respond: what a response is asked for in it, if one is.
    """

    at: int
    num_ticks: int
    respond: dict[str, Any] | None = None


@dataclass(frozen=True)
class Turn:
    """One exchange as a client might make it.

    Attributes:
        seed: what the user's voice is made of.
        num_frames: how long the user speaks; 0 for a typed turn.
        chunk: samples of one append.
        is_cleared: whether the audio is sent twice, the first time in vain.
        pauses: where the turn is committed tentatively and reopened.
        audio: whether the reply is to be spoken.
        calls: whether it is to be a function call.
        cancel_after: outputs of the reply, its start not counted, after which it is cancelled;
            None to let it finish.
        heard_ms: what is said to have been heard of a cancelled reply; None says nothing.
        shown: seeds of the pictures that are shown.
    """

    seed: int
    num_frames: float
    chunk: int = FRAME
    is_cleared: bool = False
    pauses: Sequence[Pause] = ()
    audio: bool = True
    calls: bool = False
    cancel_after: int | None = None
    heard_ms: int | None = None
    shown: Sequence[int] = ()


@dataclass
class Client:
    """Hold a conversation turn by turn, each command sent when the one before has had its effect.

    Attributes:
        session_id: whose.
        turns: what happens.
        joins_at: tick at which the session is opened.
        leaves_at: tick at which it is closed whatever it is doing; None to finish.
    """

    session_id: str
    turns: Sequence[Turn]
    joins_at: int = 0
    leaves_at: int | None = None
    outputs: list[Output] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._script = self._commands()
        self._held_from: int | None = None
        self.is_done = False

    def commands(self) -> list[Command]:
        """Return what is to be sent now, given the outputs so far."""
        return next(self._script)

    def _commands(self) -> Any:
        yield [Open(self.session_id, "ann")]
        for number, turn in enumerate(self.turns):
            yield from self._user(number, turn)
            start = len(self.outputs)
            settings: dict[str, Any] = {"audio": turn.audio}
            if turn.calls:
                settings |= {"tools": TOOLS, "tool_choice": "required"}
            yield [Respond(self.session_id, number, f"a{number}", **settings)]
            while len(self.outputs) == start or not isinstance(self.outputs[-1], ResponseDone):
                # What has started is known before any tick; how far it came at the next one depends
                # on who else had much to catch up on.
                made = [o for o in self.outputs[start:] if not isinstance(o, ResponseStarted)]
                is_stopped = turn.cancel_after is not None and len(made) >= turn.cancel_after
                yield [Cancel(self.session_id, number)] if is_stopped else []
            if turn.heard_ms is not None:
                yield [Truncate(self.session_id, f"a{number}", turn.heard_ms)]
        self.is_done = True
        yield [Close(self.session_id)]

    def _user(self, number: int, turn: Turn) -> Any:
        session_id = self.session_id
        if not turn.num_frames:
            words = f"w{turn.seed % 12}", f"w{turn.seed % 5}"
            parts = [(words[0], turn.shown[:1]), (words[1], turn.shown[1:])]
            if not turn.shown:
                parts = [(" ".join(words), ())]
            yield [
                AppendText(session_id, f"u{number}", "user", text, tuple(map(picture, shown)))
                for text, shown in parts
            ]
            return
        if turn.shown:  # the others are a camera's
            first = (picture(turn.shown[0]),)
            yield [AppendText(session_id, f"p{number}", "user", "", first)]
        camera = tuple(map(picture, turn.shown[1:]))
        if turn.is_cleared:
            start = len(self.outputs)
            yield [AppendAudio(session_id, noise(turn.seed + 1, 2.5))]
            yield []
            yield [ClearAudio(session_id)]
            # How much was heard until then depends on who else wanted something.
            assert all(isinstance(output, LIVE) for output in self.outputs[start:])
            del self.outputs[start:]
        pcm = noise(turn.seed, turn.num_frames)
        for i, start in enumerate(range(0, len(pcm), turn.chunk)):
            yield [AppendAudio(session_id, pcm[start : start + turn.chunk])]
            for pause in turn.pauses:
                if pause.at == i:
                    yield from self._pause(f"u{number}", pause, camera)
        yield [CommitAudio(session_id, f"u{number}", images=camera)]
        while not isinstance(self.outputs[-1] if self.outputs else None, InputTranscript):
            yield []

    def drop_held(self) -> None:
        """Forget what was put out in a pause: it is kept back until the turn is over."""
        if self._held_from is not None:
            held = self.outputs[self._held_from :]
            self.outputs[self._held_from :] = [o for o in held if isinstance(o, LIVE)]
            self._held_from = None

    def _pause(self, item_id: str, pause: Pause, images: tuple[Pixels, ...]) -> Any:
        self._held_from = len(self.outputs)
        commit = CommitAudio(self.session_id, item_id, is_tentative=True, images=images)
        commands: list[Command] = [commit]
        if pause.respond is not None:
            commands.append(Respond(self.session_id, 99, "perhaps", **pause.respond))
        reopen = Reopen(self.session_id, item_id)
        if pause.num_ticks < 0:
            commands.append(reopen)
        yield commands
        for _ in range(pause.num_ticks):
            yield []
        self.drop_held()
        if pause.num_ticks >= 0:
            yield [reopen]


def hold(engine: TickEngine, clock: Any, clients: Sequence[Client]) -> None:
    """Run all clients together until they are done or gone."""
    for tick in range(20_000):
        present = [c for c in clients if c.joins_at <= tick and not c.is_done]
        if all(c.is_done for c in clients):
            return
        for client in present:
            if client.leaves_at is not None and tick >= client.leaves_at:
                client.is_done = True
                client.drop_held()
                deliver(clients, engine.apply(Close(client.session_id)))
                continue
            for command in client.commands():
                deliver(clients, engine.apply(command))
        deliver(clients, engine.tick())
        clock.now_s += 0.01
    raise AssertionError("the clients never finish")


def deliver(clients: Sequence[Client], outputs: Sequence[Output]) -> None:
    """Hand outputs to those they are for."""
    for output in outputs:
        next(c for c in clients if c.session_id == output.session_id).outputs.append(output)


def alike(a: Output, b: Output) -> bool:
    """Tell whether two outputs are the same; audio may differ by rounding.

    What counts as paid for depends on who was there before.
    """
    if isinstance(a, ResponseDone | ResponseStarted) and type(a) is type(b):
        a, b = uncached(a), uncached(b)
    if isinstance(a, ResponseAudio) and isinstance(b, ResponseAudio):
        return a.pcm.shape == b.pcm.shape and np.allclose(a.pcm, b.pcm, atol=1e-5)
    return a == b


def uncached(output: ResponseDone | ResponseStarted) -> Output:
    """Return what counts a response's tokens as if nothing had been paid for before."""
    usage = replace(
        output.usage,
        input_cached_text_tokens=0,
        input_cached_audio_tokens=0,
        input_cached_image_tokens=0,
    )
    return replace(output, usage=usage)


def assert_alike(a: Sequence[Output], b: Sequence[Output]) -> None:
    """Check that two sequences of outputs are the same.

    Live transcripts are compared as far as both go: a commit that is there when the turn's last
    frame is heard makes what that frame puts out superfluous.
    """
    for left, right in zip(*map(live, (a, b)), strict=False):
        assert left == right
    assert [type(output) for output in final(a)] == [type(output) for output in final(b)]
    for left, right in zip(final(a), final(b), strict=True):
        assert alike(left, right), (left, right)


def live(outputs: Sequence[Output]) -> list[Output]:
    """Return the live transcript of the first turn."""
    return list(takewhile(lambda output: isinstance(output, LIVE), outputs))


def final(outputs: Sequence[Output]) -> list[Output]:
    """Return everything but live transcripts."""
    return [output for output in outputs if not isinstance(output, LIVE)]


pauses = st.builds(
    Pause,
    at=st.integers(0, 8),
    num_ticks=st.sampled_from([-1, 0, 1, 2, 5, 12, 30]),
    respond=st.sampled_from(
        [
            None,
            {},
            {},
            {"audio": False},
            {"voice": "bob"},
            {"tools": TOOLS, "tool_choice": "required"},
            {"max_output_tokens": 2},
        ]
    ),
)
turns = st.builds(
    Turn,
    seed=st.integers(0, 99),
    num_frames=st.sampled_from([0, 0, 1, 2.5, 7, 15]),
    chunk=st.sampled_from([333, FRAME, 5000]),
    is_cleared=st.booleans(),
    pauses=st.lists(pauses, max_size=2),
    audio=st.sampled_from([True, True, False]),
    calls=st.sampled_from([False, False, True]),
    cancel_after=st.sampled_from([None, None, 1, 3, 6, 9]),
    heard_ms=st.sampled_from([None, 0, 100, 400, 5000]),
    shown=st.lists(st.integers(0, 5), max_size=2),
)
ENDS = {"low": 0.9, "medium": 0.5, "high": 0.1}
SEEING: dict[str, Any] = {"sees": True, "limits": {"ends": ENDS}}
clients = st.tuples(
    st.lists(turns, min_size=1, max_size=4),
    st.integers(0, 30),
    st.sampled_from([None, None, 20, 50]),
)


# Pages for everybody, or for hardly more than one: 22 are what a session can take.
@pytest.mark.parametrize("memory", [{}, {"kv_page_steps": 2, "kv_pages": 30}])
@given(plans=st.lists(clients, min_size=2, max_size=4))
@settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_batched_equals_alone(
    make_engine: MakeEngine, clock: Any, memory: dict[str, int], plans: list[Any]
) -> None:
    """Whoever joins, leaves, clears, pauses, calls, cancels or truncates: others notice nothing.

    Nor do they if memory is so short that they are parked all the time.
    """
    together = [
        Client(f"s{i}", turns, joins_at, leaves_at)
        for i, (turns, joins_at, leaves_at) in enumerate(plans)
    ]
    hold(make_engine(max_sessions=4, **memory, **SEEING), clock, together)
    for client in together:
        uninterrupted = [replace(turn, pauses=()) for turn in client.turns]
        alone = Client(client.session_id, uninterrupted)
        hold(make_engine(max_sessions=1, **SEEING), clock, [alone])
        num = len(final(client.outputs)) if client.leaves_at is not None else None
        assert_alike(client.outputs, [*live(alone.outputs), *final(alone.outputs)[:num]])


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED])
@given(turns=st.lists(turns, min_size=1, max_size=4))
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_reopened_equals_never_committed(
    make_engine: MakeEngine, clock: Any, sampling: Sampling, turns: list[Turn]
) -> None:
    """Whatever was made of half a turn, the whole turn goes as if nobody had thought it over."""
    settings = {"reply_sampling": sampling, "audio_sampling": sampling, "max_sessions": 1, **SEEING}
    reopened = Client("s", turns)
    hold(make_engine(**settings), clock, [reopened])
    uninterrupted = Client("s", [replace(turn, pauses=()) for turn in turns])
    hold(make_engine(**settings), clock, [uninterrupted])
    assert_alike(reopened.outputs, uninterrupted.outputs)


@pytest.mark.parametrize("num_before", [0, 3])
@pytest.mark.parametrize("num_ticks", [3, 30])
def test_reopened_in_the_middle_of_speech(
    make_engine: MakeEngine, clock: Any, num_before: int, num_ticks: int
) -> None:
    """A reply of which audio was made is taken back, also with full rings and far beyond rewind."""
    before = [Turn(number, 7) for number in range(num_before)]
    turn = Turn(9, 9.5, pauses=[Pause(5, num_ticks, {})])
    engine = make_engine(max_sessions=1)
    reopened = Client("s", [*before, turn])
    hold(engine, clock, [reopened])
    num_spoken = engine.metrics.frames_spoken
    engine = make_engine(max_sessions=1)
    uninterrupted = Client("s", [*before, replace(turn, pauses=())])
    hold(engine, clock, [uninterrupted])
    assert_alike(reopened.outputs, uninterrupted.outputs)
    if num_ticks == 30:
        assert num_spoken > engine.metrics.frames_spoken


def test_what_is_shown_is_seen_and_counted(make_engine: MakeEngine, clock: Any) -> None:
    """Another picture is another conversation; a patch is a token, paid for once."""
    told = []
    for seed in (0, 1):
        engine = make_engine(**SEEING)
        assert engine.info.image_side == 32
        settle(engine, clock, Open("s", "ann"))
        shown = AppendText("s", "p", "user", "", (picture(seed),))
        outputs = settle(engine, clock, shown, *spoken(0))
        history = next(iter(engine._slots)).program.history
        told.append(next_logits(engine, history))
        outputs += settle(engine, clock, *spoken(1))
        usages = [o.usage for o in outputs if isinstance(o, ResponseDone)]
        assert [usage.input_image_tokens for usage in usages] == [4, 4]
        assert [usage.input_cached_image_tokens for usage in usages] == [0, 4]
    assert not torch.allclose(told[0], told[1])


def test_a_model_that_is_blind_refuses_pictures(make_engine: MakeEngine, clock: Any) -> None:
    """Nobody is answered as if a picture had been seen."""
    engine = make_engine()
    assert not engine.info.sees
    for command in (
        AppendText("s", "p", "user", "w1", (picture(0),)),
        CommitAudio("s", "u", images=(picture(0),)),
    ):
        settle(engine, clock, Open("s", "ann"))
        failed = settle(engine, clock, command)
        assert [type(output) for output in failed] == [SessionFailed]
        assert "cannot see" in failed[0].message


@pytest.mark.parametrize(("ends", "is_finished"), [(0.0, True), (1.0, False)])
def test_the_head_says_whether_a_turn_is_over(
    make_engine: MakeEngine, clock: Any, ends: float, *, is_finished: bool
) -> None:
    """Whatever pieces a model with a head puts out, its head is asked, at a threshold each."""
    limits = {"ends": {"low": 1.0 - ends, "medium": 1.0 - ends, "high": ends}}
    engine = make_engine(sees=True, limits=limits)
    settle(engine, clock, Open("s", "ann"))
    outputs = settle(
        engine,
        clock,
        AppendAudio("s", noise(1, 6)),
        CheckTurn("s", "eager", "high"),
        CheckTurn("s", "patient", "low"),
    )
    told = [(o.key, o.is_finished) for o in outputs if isinstance(o, TurnChecked)]
    assert told == [("eager", is_finished), ("patient", not is_finished)]
    assert any(isinstance(o, EndOfTurn) for o in outputs) is not is_finished


def test_slot_keeps_nothing_of_its_last_session(make_engine: MakeEngine, clock: Any) -> None:
    """A session in a used slot goes exactly as in a new engine."""
    turns = [Turn(5, 6.3), Turn(6, 0)]
    engine = make_engine(max_sessions=1)
    first = Client("a", [Turn(1, 9), Turn(3, 2, calls=True), Turn(2, 4, cancel_after=5)])
    second = Client("b", turns)
    hold(engine, clock, [first])
    hold(engine, clock, [second])
    fresh = Client("b", turns)
    hold(make_engine(max_sessions=1), clock, [fresh])
    assert_alike(second.outputs, fresh.outputs)
    assert not list(engine._slots)


@pytest.mark.parametrize("chunk", [100, 1279, 3333, 10**6])
def test_audio_in_odd_pieces_equals_whole_frames(
    make_engine: MakeEngine, clock: Any, chunk: int
) -> None:
    """How audio is cut up on its way changes nothing."""
    whole, cut = Client("s", [Turn(1, 8)]), Client("s", [Turn(1, 8, chunk=chunk)])
    hold(make_engine(), clock, [whole])
    hold(make_engine(), clock, [cut])
    assert_alike(whole.outputs, cut.outputs)


def settle(engine: TickEngine, clock: Any, *commands: Command) -> list[Output]:
    """Carry commands out and tick until nothing is left to do, the clock running as needed."""
    outputs = [output for command in commands for output in engine.apply(command)]
    while (due_s := engine.next_due_s()) is not None:
        clock.now_s = max(clock.now_s, due_s)
        outputs += engine.tick()
    return outputs


def spoken(number: int, num_frames: float = 7, **respond: Any) -> list[Command]:
    """Return the commands of one spoken exchange."""
    return [
        AppendAudio("s", noise(number, num_frames)),
        CommitAudio("s", f"u{number}"),
        Respond("s", number, f"a{number}", **respond),
    ]


@torch.inference_mode()
def next_logits(engine: TickEngine, history: History) -> torch.Tensor:
    """Return the logits after one more text step, feeding first what of `history` is missing."""
    runner, end = engine._runner, len(history)
    fed = min(history.fed, runner._pager.state.length(0))
    fed = fed if runner.seek(0, fed) else 0
    steps = [NextSteps(fed, history.block(fed, end))] if fed < end else []
    for step in (*steps, NextSteps(end, history.block(2, 3))):
        inputs = _to_steps([Request(0, step, torch.Generator())], torch.device("cpu"))
        hidden = runner._lm.step(inputs, runner._pager.state, [0])
    return runner._lm.text_logits(hidden[:, -1])


@pytest.mark.parametrize(("num_before", "heard_ms"), [(0, 0), (0, 170), (3, 0), (3, 90), (3, 170)])
def test_truncated_equals_never_said(
    make_engine: MakeEngine, clock: Any, num_before: int, heard_ms: int
) -> None:
    """After a truncation the model's memory is that of a conversation that went so from the start.

    With and without so much before it that the rings have turned over and cannot be rewound.
    """
    engine = make_engine(max_sessions=1)
    settle(engine, clock, Open("s", "ann"))
    for number in range(num_before + 1):
        settle(engine, clock, *spoken(number))
    history = next(iter(engine._slots)).program.history
    before = len(history)
    settle(engine, clock, Truncate("s", f"a{num_before}", heard_ms))
    assert len(history) < before
    logits = [next_logits(e, history) for e in (engine, make_engine(max_sessions=1))]
    torch.testing.assert_close(logits[0], logits[1], atol=1e-9, rtol=1e-9)


def test_long_call_forgets_but_goes_on(make_engine: MakeEngine, clock: Any) -> None:
    """Past the length that the history keeps, memory stays bounded and truncation still works."""
    engine = make_engine(max_sessions=1, limits={"max_history_steps": 64})
    settle(engine, clock, Open("s", "ann"))
    for number in range(6):
        outputs = settle(engine, clock, *spoken(number, 20))
        assert isinstance(outputs[-1], ResponseDone)
        outputs = settle(engine, clock, Truncate("s", f"a{number}", 170))
        assert outputs == []
    history = next(iter(engine._slots)).program.history
    assert history.oldest > 50
    assert len(history._text) == 64


def test_cancel_leaves_no_stale_output(make_engine: MakeEngine, clock: Any) -> None:
    """At whatever point a reply is cancelled, its end is the last that is heard of it."""
    for num_ticks in range(12):
        engine = make_engine(max_sessions=1)
        settle(engine, clock, Open("s", "ann"))
        outputs = [o for command in spoken(1) for o in engine.apply(command)]
        for _ in range(num_ticks):
            outputs += engine.tick()
        outputs = engine.apply(Cancel("s", 1))
        outputs += settle(engine, clock)
        told = [o for o in outputs if not isinstance(o, (*LIVE, InputTranscript))]
        assert len(told) == 1
        assert isinstance(told[0], ResponseDone)
        assert told[0].reason == "cancelled"


def spoken_in(session_id: str) -> list[Command]:
    """Return a spoken turn of a session, and the request for its reply."""
    return [
        AppendAudio(session_id, noise(1, 3)),
        CommitAudio(session_id, "u"),
        Respond(session_id, 1, "a"),
    ]


def test_what_was_not_heard_yet_is_urgent_once_all_is_said(make_engine: MakeEngine) -> None:
    """A frame of a turn that goes on has time; of one that is over, somebody waits for it."""
    engine = make_engine(max_sessions=1)
    engine.apply(Open("s", "ann"))
    engine.tick()
    engine.apply(AppendAudio("s", noise(1, 2)))
    slot = engine._slots.get("s")
    assert slot is not None
    assert slot.work is Urgency.FRAME
    engine.apply(CommitAudio("s", "u"))
    assert slot.work is Urgency.ANSWER
    while slot.program.phase is Phase.LISTENING:
        engine.tick()
        assert slot.work is Urgency.ANSWER


def test_reply_is_made_ahead_by_a_bounded_amount(make_engine: MakeEngine, clock: Any) -> None:
    """Audio is made at once up to the budget, then as it is played."""
    engine = make_engine(max_sessions=1, ahead_ms=300, limits={"max_tail_frames": 12})
    for command in (Open("s", "ann"), *spoken(1, 1)):
        engine.apply(command)
    start_s, made_s, ahead_s = None, 0.0, []
    while (due_s := engine.next_due_s()) is not None:
        clock.now_s = max(clock.now_s, due_s)
        for output in engine.tick():
            if isinstance(output, ResponseAudio):
                start_s = clock.now_s if start_s is None else start_s
                made_s += len(output.pcm) / engine.info.sample_rate_hz
                ahead_s.append(made_s - (clock.now_s - start_s))
    assert made_s > 0.7
    assert max(ahead_s) < 0.42  # the budget, a frame, and what the decoder held back
    assert min(ahead_s[5:-1]) >= 0.3
    assert engine.metrics.frames_late == 0


def test_late_audio_is_counted(make_engine: MakeEngine, clock: Any) -> None:
    """A frame that comes after the client has run dry is a late one."""
    engine = make_engine(max_sessions=1, limits={"max_tail_frames": 12})
    for command in (Open("s", "ann"), *spoken(1, 1)):
        engine.apply(command)
    while engine.next_due_s() is not None:
        clock.now_s += 0.5
        engine.tick()
    assert engine.metrics.frames_late > 5


def test_frames_that_are_heard_late_are_counted(make_engine: MakeEngine, clock: Any) -> None:
    """Those for which a whole frame had to wait; of what nobody listened to in time, all."""
    for wait_s, num_late in ((0.07, 0), (0.09, 4)):
        engine = make_engine(max_sessions=1)
        engine.apply(Open("s", "ann"))
        engine.tick()
        for seed in range(4):
            engine.apply(AppendAudio("s", noise(seed, 1)))
            clock.now_s += wait_s
            engine.tick()
        assert (engine.metrics.frames_heard, engine.metrics.frames_heard_late) == (4, num_late)


def test_those_who_join_with_a_past_do_not_disturb_calls(
    make_engine: MakeEngine, clock: Any
) -> None:
    """Replies in progress never run dry, and of all the joiners' blocks one a tick is run."""
    limits = {"max_tail_frames": 40, "max_prefill_steps": 32, "max_reply_frames": 40}
    engine = make_engine(max_sessions=5, ahead_ms=200, limits=limits)
    for session_id in ("a", "b"):
        for command in (Open(session_id, "ann"), *spoken_in(session_id)):
            engine.apply(command)
    while engine.metrics.frames_spoken < 6:
        engine.tick()
        clock.now_s += 0.005
    joiners = ("c", "d", "e")
    for session_id in joiners:
        engine.apply(Open(session_id, "ann"))
        words = " ".join(f"w{i % 12}" for i in range(60))
        engine.apply(AppendText(session_id, "u", "user", words))
    behind = [engine._slots.get(session_id) for session_id in joiners]
    num_blocks = 0
    while any(slot is not None and slot.program.has_work for slot in behind):
        before = [slot.program.num_waiting_steps for slot in behind if slot is not None]
        engine.tick()
        clock.now_s += 0.02
        after = [slot.program.num_waiting_steps for slot in behind if slot is not None]
        moved = [b - a for b, a in zip(before, after, strict=True) if b - a > 16]
        assert len(moved) <= 1
        num_blocks += len(moved)
    assert num_blocks >= len(joiners)
    assert engine.metrics.frames_late == engine.metrics.frames_heard_late == 0


def test_broken_session_fails_alone(make_engine: MakeEngine, clock: Any) -> None:
    """What one session gets wrong, or what breaks in its own state, is its own failure."""
    engine = make_engine(max_sessions=3)
    settle(engine, clock, Open("s", "ann"), Open("b", "ann"), Open("c", "ann"))
    (failed,) = engine.apply(Respond("b", 1, "a", voice="nobody"))
    assert isinstance(failed, SessionFailed)
    assert failed.session_id == "b"
    # Memory of slot 2 is poisoned; what is computed for the other slot is not.
    state = engine._runner._pager.state
    for store, pages in zip(state.stores, state.pages(2), strict=True):
        for page in pages:
            store.kv[:, :, :, page * store.page_steps :][..., : store.page_steps, :] = torch.nan
    outputs = settle(engine, clock, Respond("c", 1, "a"), *spoken(1))
    failures = [o for o in outputs if isinstance(o, SessionFailed)]
    assert [o.session_id for o in failures] == ["c"]
    assert isinstance(outputs[-1], ResponseDone)
    assert [slot.session_id for slot in engine._slots] == ["s"]
    assert engine.metrics.sessions_failed == 2
    # The poisoned slot is wiped before it is used again.
    outputs = settle(engine, clock, Open("d", "ann"), Open("e", "ann"), Respond("e", 1, "a"))
    assert isinstance(outputs[-1], ResponseDone)


def test_program_that_breaks_fails_its_session(make_engine: MakeEngine, clock: Any) -> None:
    """A defect in one session's program is contained in that session."""
    engine = make_engine(max_sessions=2)
    settle(engine, clock, Open("s", "ann"), Open("b", "ann"))
    engine.apply(Respond("b", 1, "a"))
    engine._slots.get("b").program._speaker.reply = None
    outputs = settle(engine, clock, *spoken(1))
    assert [o.session_id for o in outputs if isinstance(o, SessionFailed)] == ["b"]
    assert isinstance(outputs[-1], ResponseDone)


def test_what_another_session_has_fed_is_cached(make_engine: MakeEngine, clock: Any) -> None:
    """A second session with the same voice is not charged for its beginning, nor fed it."""
    engine = make_engine(max_sessions=3)
    cached, steps = [], []
    for session_id, voice in (("s", "ann"), ("b", "ann"), ("c", "bob")):
        settle(engine, clock, Open(session_id, voice))
        steps.append(engine.metrics.steps)
        typed = AppendText(session_id, "u", "user", "w1")
        done = settle(engine, clock, typed, Respond(session_id, 1, "a"))[-1]
        assert isinstance(done, ResponseDone)
        cached.append(done.usage.input_cached_tokens)
        settle(engine, clock, Close(session_id))
        steps.append(engine.metrics.steps)
    assert cached == [0, 2, 0]
    assert (engine.metrics.prompt_hits, engine.metrics.prompt_misses) == (1, 2)
    opened = [after - before for before, after in zip([0, *steps[1::2]], steps[::2], strict=False)]
    assert opened == [1, 0, 1]


def test_refuses_what_it_has_no_room_for(make_engine: MakeEngine, clock: Any) -> None:
    """One session more than there are slots fails; a known one cannot be opened twice."""
    engine = make_engine(max_sessions=1)
    assert settle(engine, clock, Open("s", "nobody")) != []
    assert settle(engine, clock, Open("s", "ann")) == []
    assert isinstance(engine.apply(Open("t", "ann"))[0], SessionFailed)
    assert engine.apply(Close("unknown")) == []
    assert [slot.session_id for slot in engine._slots] == ["s"]


def test_everything_fails_together_and_starts_over(make_engine: MakeEngine, clock: Any) -> None:
    """After the engine broke, every session knows, and new ones find a working engine."""
    engine = make_engine(max_sessions=2)
    settle(engine, clock, Open("s", "ann"), Open("b", "ann"), *spoken(1))
    for store in engine._runner._pager.state.stores:
        store.kv.fill_(torch.nan)
    failed = engine.fail_all("broken")
    assert [o.session_id for o in failed] == ["s", "b"]
    outputs = settle(engine, clock, Open("s", "ann"), *spoken(1))
    assert isinstance(outputs[-1], ResponseDone)


def test_sampled_replies_repeat_by_seed_whoever_else_is_there(
    make_engine: MakeEngine, clock: Any
) -> None:
    """With temperature, a session's draws are its own: the batch does not change them."""
    made = []
    for others in (0, 2, 0):
        engine = make_engine(max_sessions=3, reply_sampling=SAMPLED, audio_sampling=SAMPLED)
        ids = ["s", "b", "c"][: others + 1]
        opened = [Open(i, "ann") for i in ids]
        settle(engine, clock, *opened, *(AppendText(i, "u", "user", "w1 w2") for i in ids))
        outputs = settle(engine, clock, *(Respond(i, 1, "a") for i in ids))
        made.append([o for o in outputs if o.session_id == "s"])
    assert_alike(made[0], made[1])
    assert_alike(made[0], made[2])
    texts = [o.text for o in made[0] if isinstance(o, ResponseText)]
    assert texts


def test_calls_go_by_the_model(make_engine: MakeEngine, clock: Any) -> None:
    """Arguments are what the model made of the conversation, within the schema."""
    made = []
    for words in ("w1 w2", "w1 w2", "w5 w6 w7"):
        engine = make_engine(max_sessions=1)
        settle(engine, clock, Open("s", "ann"), AppendText("s", "u", "user", words))
        outputs = settle(engine, clock, Respond("s", 1, "a", tools=TOOLS, tool_choice="required"))
        assert isinstance(outputs[-1], ResponseDone)
        assert isinstance(outputs[-2], CallDone)
        text = "".join(o.text for o in outputs if isinstance(o, CallArguments))
        (name,) = (o.name for o in outputs if isinstance(o, CallStarted))
        if name != "w3":
            jsonschema.validate(json.loads(text), json.loads(SCHEMA))
        made.append(text)
    assert made[0] == made[1]


def test_counts_what_it_does(make_engine: MakeEngine, clock: Any) -> None:
    """Every tick is in one bucket; frames and batch rows are counted."""
    engine = make_engine(max_sessions=2)
    settle(engine, clock, Open("s", "ann"), *spoken(1, 5))
    metrics = engine.metrics
    assert metrics.ticks == sum(metrics.tick_buckets) > 5
    assert metrics.steps >= metrics.ticks
    assert metrics.frames_heard == 5
    assert metrics.frames_spoken > 2
    assert metrics.sessions == 1
    assert min(metrics.encode_seconds, metrics.lm_seconds, metrics.depth_seconds) > 0
