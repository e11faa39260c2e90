"""The duplex engine: a conversation is the same in whatever company, and prompts are run once."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.duplex.engine import DuplexEngine, DuplexParts
from model.duplex.prompt import Prompt
from model.duplex.runner import DuplexRunner
from model.duplex.user_stream import StreamRules
from model.engine.config import EngineConfig
from model.errors import ConfigError, EngineError, WeightsError
from model.messages import (
    AppendAudio,
    Cancel,
    ClearAudio,
    Close,
    Command,
    CommitAudio,
    InputTranscript,
    Open,
    Output,
    Recite,
    Reopen,
    Respond,
    ResponseAudio,
    ResponseDone,
    ResponseText,
    SessionFailed,
    Truncate,
)
from model.metrics import EngineMetrics
from model.sampling import Sampling
from tests.fakes.duplex import FRAME, make_small_parts, with_talk
from tests.model.conftest import FakeClock

# A round of the clock is a binary fraction, so that sums of it are exact.
ROUND_S = 0.0625
SAMPLED = Sampling(temperature=1.0, top_k=8)


@functools.cache
def parts_of(kind: str, guidance: float = 1.0) -> DuplexParts:
    """Return a small model of a kind; random ones are never quiet, so that only words count."""
    return make_small_parts(kind, guidance=guidance)


def make(parts: DuplexParts, clock: FakeClock, **config: Any) -> DuplexEngine:
    """Return an engine on a clock that stands still."""
    config = {"max_sessions": 4, **config}
    return DuplexEngine(parts, EngineConfig(**config), clock=clock)


def run(engine: DuplexEngine, clock: FakeClock) -> list[Output]:
    """Tick as long as something is due."""
    outputs: list[Output] = []
    while (due_s := engine.next_due_s()) is not None and due_s <= clock.now_s:
        outputs += engine.tick()
    return outputs


def sound(seed: int, num_samples: int) -> np.ndarray:
    """Return noise as loud as speech."""
    return np.random.default_rng(seed).normal(0, 0.1, num_samples).astype(np.float32)


@dataclass(frozen=True)
class Session:
    """One client: what it sends in which round after it has joined.

    Attributes:
        seed: of its voice.
        appends: samples that it appends in each round.
        joins_at: round in which it joins.
        voice: which of the model's.
        instructions: of its prompt.
        limit: tokens of its first response; None for no limit.
        asks_at: round in which it asks for a response, beside those that stand; None for never.
        cut: round in which it cancels its response, and how much it says it has heard of it; None
            for never.
        commits_at: round in which it commits.
        leaves_at: round in which it leaves.
    """

    seed: int = 0
    appends: tuple[int, ...] = (FRAME,) * 8
    joins_at: int = 0
    voice: int = 0
    instructions: str = ""
    limit: int | None = None
    asks_at: int | None = None
    cut: tuple[int, int] | None = None
    commits_at: int | None = None
    leaves_at: int | None = None


@dataclass
class Client:
    """Plays a session."""

    name: str
    session: Session
    parts: DuplexParts
    outputs: list[Output] = field(default_factory=list)
    turn: int = 1
    num_sent: int = 0

    def commands(self, now: int) -> list[Command]:
        """Return what is sent in a round."""
        it, name = self.session, self.name
        since = now - it.joins_at
        sent: list[Command] = []
        if since < 0 or (it.leaves_at is not None and since > it.leaves_at):
            return []
        if since == 0:
            voice = self.parts.voices[it.voice % len(self.parts.voices)]
            sent.append(Open(name, voice, it.instructions))
            sent.append(self.respond(is_standing=True))
        if since < len(it.appends):
            pcm = sound(it.seed, sum(it.appends))
            start = sum(it.appends[:since])
            sent.append(AppendAudio(name, pcm[start : start + it.appends[since]]))
        if since == it.asks_at:
            sent.append(self.respond(is_standing=False))
        if it.cut is not None and since == it.cut[0]:
            sent += [Cancel(name, self.turn), Truncate(name, f"item_{self.turn}", it.cut[1])]
        if since == it.commits_at:
            sent.append(CommitAudio(name, "user"))
        if since == it.leaves_at:
            sent.append(Close(name))
        return sent

    def respond(self, *, is_standing: bool) -> Respond:
        """Ask for a response."""
        return Respond(
            self.name,
            self.turn,
            f"item_{self.turn}",
            max_output_tokens=self.session.limit,
            is_standing=is_standing,
        )

    def take(self, output: Output) -> list[Command]:
        """Note an output, and ask for what comes after a response."""
        self.outputs.append(output)
        if isinstance(output, ResponseDone):
            self.turn += 1
            return [self.respond(is_standing=True)]
        return []


def converse(
    parts: DuplexParts,
    sessions: Sequence[Session],
    num_rounds: int = 18,
    metrics: EngineMetrics | None = None,
    **config: int,
) -> list[list[Output]]:
    """Hold conversations together, counted in `metrics`; returns what each was told."""
    clock = FakeClock()
    engine = make(parts, clock, **config)
    if metrics is not None:
        engine.metrics = engine._runner._metrics = engine._runner._parking._metrics = metrics
    clients = {f"s{i}": Client(f"s{i}", each, parts) for i, each in enumerate(sessions)}

    def give(outputs: Sequence[Output]) -> None:
        for output in outputs:
            for command in clients[output.session_id].take(output):
                give(engine.apply(command))

    for now in range(num_rounds):
        for client in clients.values():
            for command in client.commands(now):
                give(engine.apply(command))
        give(run(engine, clock))
        clock.now_s += ROUND_S
    return [client.outputs for client in clients.values()]


def same(first: Sequence[Output], second: Sequence[Output]) -> None:
    """Compare what two sessions were told, whatever they are called; sound to what float32 is."""
    assert [type(output) for output in first] == [type(output) for output in second]
    for one, other in zip(first, second, strict=True):
        if isinstance(one, ResponseAudio) and isinstance(other, ResponseAudio):
            np.testing.assert_allclose(one.pcm, other.pcm, rtol=0, atol=1e-6)
        else:
            assert replace(one, session_id="") == replace(other, session_id="")


SESSIONS = st.builds(
    Session,
    seed=st.integers(0, 3),
    appends=st.lists(
        st.sampled_from([0, 5, FRAME, FRAME + 7, 3 * FRAME]), min_size=4, max_size=12
    ).map(tuple),
    joins_at=st.integers(0, 6),
    voice=st.integers(0, 1),
    instructions=st.sampled_from(["", "the dog"]),
    limit=st.sampled_from([None, 9]),
    asks_at=st.sampled_from([None, 2]),
    cut=st.sampled_from([None, (7, 0), (9, 170), (5, 90)]),
    commits_at=st.sampled_from([None, 6]),
    leaves_at=st.sampled_from([None, None, 10]),
)


@pytest.mark.parametrize(
    ("kind", "guidance"), [("moshi", 1.0), ("personaplex", 1.0), ("hibiki", 1.0), ("hibiki", 2.0)]
)
@settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(sessions=st.lists(SESSIONS, min_size=2, max_size=3))
def test_alone_and_in_company(kind: str, guidance: float, sessions: list[Session]) -> None:
    """Whoever joins, leaves, interrupts, is late or sends in bulk: each is what it is alone."""
    parts = parts_of(kind, guidance)
    together = converse(parts, sessions)
    for session, outputs in zip(sessions, together, strict=True):
        alone = converse(parts, [session])[0]
        same(outputs, alone)


def test_in_single_precision() -> None:
    """Token for token in float32 as well; any of the choices could tip, and none does."""
    parts = make_small_parts("moshi", dtype="float32")
    sessions = [Session(seed=i, appends=(FRAME,) * 12, joins_at=i) for i in range(4)]
    together = converse(parts, sessions)
    for session, outputs in zip(sessions, together, strict=True):
        assert any(isinstance(output, ResponseText) for output in outputs)
        same(outputs, converse(parts, [session])[0])


def test_small_batches_serve_everyone() -> None:
    """Two at a time are as good as four, a tick later."""
    sessions = [Session(seed=i) for i in range(4)]
    full = converse(parts_of("moshi"), sessions)
    for outputs, other in zip(
        converse(parts_of("moshi"), sessions, max_batch=2), full, strict=True
    ):
        same(outputs, other)


@pytest.mark.parametrize("sampling", [Sampling(), SAMPLED])
def test_a_prompt_that_was_run_before(sampling: Sampling) -> None:
    """The next session with the same voice and text is what it would be without: to the token."""
    parts = make_small_parts("personaplex", sampling=sampling)
    clock = FakeClock()
    engine = make(parts, clock)
    told: list[list[Output]] = []
    steps: list[int] = []
    for name in ("first", "second"):
        engine._num_opened = 0  # the same noise for both
        session = Session(instructions="the lazy dog jumps", seed=1)
        client = Client(name, session, parts)
        before = engine.metrics.steps
        for now in range(14):
            for command in client.commands(now):
                for output in engine.apply(command):
                    client.take(output)
            for output in run(engine, clock):
                client.take(output)
            clock.now_s += ROUND_S
        told.append(client.outputs)
        steps.append(engine.metrics.steps - before)
        engine.apply(Close(name))
    assert len(told[0]) > 8
    same(told[0], told[1])
    assert engine.num_kept_prompts == 1
    num_pieces = len(parts.traits.pieces.encode("<system> the lazy dog jumps <system>"))
    assert steps[0] - steps[1] == 3 + 12 + num_pieces


def test_prompts_are_kept_apart() -> None:
    """One a voice and text, as long as the engine is whole."""
    parts, clock = parts_of("personaplex"), FakeClock()
    engine = make(parts, clock)
    for text, voice, kept in (("", 0, 1), ("", 1, 2), ("dog", 0, 3), ("", 0, 3)):
        engine.apply(Open("s", parts.voices[voice], text))
        run(engine, clock)
        engine.apply(Close("s"))
        assert engine.num_kept_prompts == kept
    engine.fail_all("enough")
    assert engine.num_kept_prompts == 0


def test_prompts_that_are_kept_are_bounded() -> None:
    """The one that was not asked for the longest makes room."""
    parts = parts_of("personaplex")
    runner = DuplexRunner(
        parts.model, EngineConfig(max_sessions=1, cached_prompts=2), EngineMetrics()
    )
    prompt = parts.prompt("ann", "")

    def is_kept(key: str) -> bool:
        return runner.begin_prompted(0, prompt, key)[1]

    for key in "ab":
        assert not is_kept(key)
        runner.keep(0, key)
    assert is_kept("a")
    runner.keep(0, "c")
    assert runner.num_kept_prompts == 2
    assert [is_kept(key) for key in "abc"] == [True, False, True]


@pytest.mark.parametrize(("guidance", "kv_pages"), [(1.0, 7), (2.0, 14)])
def test_memory_for_one_serves_many(guidance: float, kv_pages: int) -> None:
    """Who is silent gives way to who speaks, and goes on as if nothing had been."""
    kind = "hibiki" if guidance != 1.0 else "moshi"
    parts = make_small_parts(kind, guidance=guidance)
    lm = parts.model.lm
    lm.config = replace(lm.config, rewind_steps=4)
    parts = replace(parts, model=replace(parts.model, reach=4))
    burst, pause = (4 * FRAME,) * 2, (0,) * 2
    sessions = [
        Session(seed=i, appends=((*pause,) * i + burst + pause * (3 - i)) * 2, commits_at=30)
        for i in range(3)
    ]
    rules = replace(parts.rules, stream=StreamRules(late_ms=5_000))
    parts = replace(parts, rules=rules)
    memory = {"kv_page_steps": 4, "kv_pages": kv_pages}
    metrics = EngineMetrics()
    together = converse(parts, sessions, 18, metrics, **memory)
    assert metrics.parks > 1
    for session, outputs in zip(sessions, together, strict=True):
        assert len(outputs) > 16
        same(outputs, converse(parts, [session])[0])
    with pytest.raises(ConfigError, match=f"one conversation takes up to {4 * round(guidance)}"):
        make(parts, FakeClock(), kv_page_steps=4, kv_pages=3)


def test_no_memory_for_two_at_once() -> None:
    """The newer session is told so, and the older one goes on."""
    parts = make_small_parts("moshi")
    lm = parts.model.lm
    lm.config = replace(lm.config, rewind_steps=4)
    engine = make(parts, FakeClock(), kv_page_steps=4, kv_pages=5)
    outputs: list[Output] = []
    for name in ("a", "b"):
        engine.apply(Open(name, "voice"))
        engine.apply(AppendAudio(name, sound(1, 16 * FRAME)))
    for _ in range(16):
        outputs += engine.tick()
    message = "there is no memory left for the conversation"
    assert outputs == [SessionFailed("b", message)]
    assert [slot.session_id for slot in engine._slots] == ["a"]
    assert engine._runner._duplex.num_calls(0) == 16


def test_voice_and_text_matter() -> None:
    """Sessions with other prompts say other things."""
    parts = parts_of("personaplex")
    sessions = [Session(), Session(voice=1), Session(instructions="the lazy dog")]
    first, second, third = (
        "".join(o.text for o in outputs if isinstance(o, ResponseText))
        for outputs in converse(parts, sessions)
    )
    assert first
    assert len({first, second, third}) == 3


def test_a_slot_is_wiped() -> None:
    """Whoever comes next is as in a new engine."""
    parts, clock = parts_of("hibiki"), FakeClock()
    engine = make(parts, clock, max_sessions=1)
    engine.apply(Open("before", "voice"))
    engine.apply(AppendAudio("before", sound(7, 5 * FRAME)))
    run(engine, clock)
    engine.apply(Close("before"))
    told: list[Output] = []
    for command in (
        Open("s0", "voice"),
        Respond("s0", 1, "item_1", is_standing=True),
        AppendAudio("s0", sound(1, 8 * FRAME)),
    ):
        told += engine.apply(command)
    told += run(engine, clock)
    fresh = converse(parts, [Session(seed=1, appends=(8 * FRAME,))], num_rounds=1)[0]
    same(told, fresh)


def test_a_cut_reply_goes_back_to_what_was_heard() -> None:
    """The model is where it was when it stopped being heard, and has been silent since."""
    parts, clock = parts_of("moshi"), FakeClock()
    engine = make(parts, clock)
    engine.apply(Open("s", "voice"))
    engine.apply(Respond("s", 1, "item_1", is_standing=True))
    engine.apply(AppendAudio("s", sound(1, 10 * FRAME)))
    told = [output for _ in range(10) for output in engine.tick()]
    assert sum(isinstance(output, ResponseAudio) for output in told) == 9
    duplex = engine._runner._duplex
    assert duplex.num_calls(0) == 10
    *_, done = engine.apply(Cancel("s", 1))
    assert isinstance(done, ResponseDone)
    assert done.reason == "cancelled"
    assert done.usage.output_audio_tokens == 9
    engine.apply(Truncate("s", "item_1", 2 * 80 + 40))
    assert duplex.num_calls(0) == 3  # the first frame is whole in the second step
    for _ in range(7):
        assert not engine.tick()
    assert duplex.num_calls(0) == 10
    assert torch.equal(duplex._ring[0, :, 10 % 3][:2], torch.tensor([3, 1]))


def test_beyond_reach_only_the_history_is_cut() -> None:
    """What the model has forgotten how to take back, it keeps."""
    parts = parts_of("moshi")
    parts, clock = replace(parts, model=replace(parts.model, reach=2)), FakeClock()
    engine = make(parts, clock)
    engine.apply(Open("s", "voice"))
    engine.apply(Respond("s", 1, "item_1", is_standing=True))
    engine.apply(AppendAudio("s", sound(1, 10 * FRAME)))
    for _ in range(10):
        engine.tick()
    engine.apply(Cancel("s", 1))
    assert not engine.apply(Truncate("s", "item_1", 0))
    assert engine._runner._duplex.num_calls(0) == 10


def test_a_translation_ends() -> None:
    """After the end of the input, Hibiki says that it is done; what follows is a new one."""
    parts, clock = parts_of("hibiki"), FakeClock()
    # A random model does not say so by itself: let any piece mean it.
    told: list[Output] = []
    engine = make(parts, clock)
    engine.apply(Open("s", "voice"))
    engine.apply(Respond("s", 1, "item_1", is_standing=True))
    engine.apply(AppendAudio("s", sound(1, 6 * FRAME)))
    told += run(engine, clock)
    piece = int(engine._runner._duplex._ring[0, 0, 6 % 4])
    parts = replace(parts, traits=replace(parts.traits, text_end=piece))
    engine = make(parts, clock)
    engine.apply(Open("s", "voice"))
    engine.apply(Respond("s", 1, "item_1", is_standing=True))
    engine.apply(AppendAudio("s", sound(1, 6 * FRAME)))
    assert engine.apply(CommitAudio("s", "user")) == [InputTranscript("s", "user", "")]
    told = []
    for _ in range(40):
        due_s = engine.next_due_s()
        if due_s is None:
            break
        clock.now_s = max(clock.now_s, due_s)
        told += engine.tick()
    assert engine.next_due_s() is None, "it goes on"
    assert isinstance(told[-1], ResponseDone)
    assert told[-1].reason == "completed"
    engine.apply(Respond("s", 2, "item_2", is_standing=True))
    engine.apply(AppendAudio("s", sound(1, 3 * FRAME)))
    engine.tick()
    assert engine._runner._duplex.num_calls(0) == 1


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (Open("s", "voice"), "open already"),
        (Open("t", "nobody"), "unknown voice 'nobody', expected one of voice"),
        (Reopen("s", "user"), "no turns to reopen"),
        (Recite("s", 1, "words"), "recites none"),
    ],
)
def test_what_cannot_be(command: Command, message: str) -> None:
    """A session fails by itself, and its slot is free."""
    engine = make(parts_of("moshi"), FakeClock(), max_sessions=2)
    engine.apply(Open("s", "voice"))
    (failed,) = engine.apply(command)
    assert isinstance(failed, SessionFailed)
    assert message in failed.message


def test_no_more_sessions_than_slots() -> None:
    """One too many is told so, and those that are there are not touched."""
    engine = make(parts_of("moshi"), FakeClock(), max_sessions=1)
    assert not engine.apply(Open("s", "voice"))
    (failed,) = engine.apply(Open("t", "voice"))
    assert isinstance(failed, SessionFailed)
    assert [slot.session_id for slot in engine._slots] == ["s"]
    assert [type(output) for output in engine.fail_all("gone")] == [SessionFailed]
    assert not engine.apply(Open("t", "voice"))


def test_numbers_that_mean_nothing_fail_the_session() -> None:
    """And nobody else's."""
    parts = make_small_parts("moshi")
    clock = FakeClock()
    engine = make(parts, clock)
    for name in ("a", "b"):
        engine.apply(Open(name, "voice"))
        engine.apply(AppendAudio(name, sound(1, FRAME)))
    engine.tick()
    state = engine._runner._duplex.state
    for store, pages in zip(state.stores, state.pages(0), strict=True):
        for page in pages:
            store.kv[:, :, :, page * store.page_steps : (page + 1) * store.page_steps] = torch.nan
    for name in ("a", "b"):
        engine.apply(AppendAudio(name, sound(1, FRAME)))
    outputs = engine.tick()
    assert outputs == [SessionFailed("a", "the model's output is not finite")]
    assert [slot.session_id for slot in engine._slots] == ["b"]


def test_too_long_instructions_are_refused() -> None:
    """By the number of pieces that they are, and may be."""
    engine = make(parts_of("personaplex"), FakeClock())
    (failed,) = engine.apply(Open("s", "ann", "dog " * 1_001))
    assert isinstance(failed, SessionFailed)
    assert "the model takes at most 1000" in failed.message


def test_cleared_audio_is_not_heard() -> None:
    """As far as it has not been yet."""
    engine = make(parts_of("moshi"), FakeClock())
    engine.apply(Open("s", "voice"))
    engine.apply(AppendAudio("s", sound(1, 3 * FRAME)))
    engine.tick()
    engine.apply(ClearAudio("s"))
    assert not engine.tick()
    assert engine._runner._duplex.num_calls(0) == 1


def test_warming_up_leaves_nothing() -> None:
    """No session, no counters, and the slots as they were."""
    parts = with_talk(parts_of("personaplex"), quiet_frames=3)
    engine = make(parts, FakeClock())
    engine.warm_up()
    assert not list(engine._slots)
    assert engine.metrics.ticks == 0
    assert engine.next_due_s() is None


def test_a_voice_that_cannot_be_read_stops_the_start() -> None:
    """The default one is needed at once; another fails the session that asks for it."""

    def prompt(voice: str, instructions: str) -> Prompt:
        raise WeightsError(f"{voice}: broken{instructions}")

    engine = make(replace(parts_of("personaplex"), prompt=prompt), FakeClock())
    with pytest.raises(EngineError, match="ann: broken"):
        engine.warm_up()
    assert engine.apply(Open("s", "eve")) == [SessionFailed("s", "eve: broken")]
