"""Random twins: whole models of noise, with simple manners, that say what they are."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch

from model.assemble.twin import NOTE, WORDS, TwinManner, make_twin
from model.duplex.engine import DuplexEngine
from model.engine.config import EngineConfig
from model.family import ServedKind
from model.messages import (
    AppendAudio,
    Cancel,
    Open,
    Output,
    Respond,
    ResponseAudio,
    ResponseDone,
    ResponseText,
)
from model.pieces import PAD
from tests.model.conftest import FakeClock

FRAME = 1920
SPEECH = np.random.default_rng(0).normal(0, 0.1, 5 * FRAME).astype(np.float32)
SILENCE = np.zeros(FRAME, dtype=np.float32)


def run(engine: DuplexEngine, clock: FakeClock, seconds: float) -> list[Output]:
    """Let time pass."""
    outputs: list[Output] = []
    end_s = clock.now_s + seconds
    while (due_s := engine.next_due_s()) is not None and due_s <= end_s:
        clock.now_s = max(clock.now_s, due_s)
        outputs += engine.tick()
    clock.now_s = end_s
    return outputs


def rms(pcm: np.ndarray) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(np.square(pcm))))


@pytest.mark.parametrize("kind", get_args(ServedKind))
def test_a_whole_conversation(kind: ServedKind) -> None:
    """Spoken to, it says in noise and in words what it is; then it is silent, until spoken to."""
    parts = make_twin(kind, 1, f"{kind}-tiny")
    clock = FakeClock()
    engine = DuplexEngine(parts, EngineConfig(), clock=clock)
    assert engine.info.is_duplex
    assert engine.info.note == NOTE
    engine.warm_up()
    engine.apply(Open("s", parts.voices[-1], "be kind"))
    engine.apply(Respond("s", 1, "item_1", is_standing=True))
    engine.apply(AppendAudio("s", SPEECH))
    outputs = run(engine, clock, 6.5)
    assert "".join(o.text for o in outputs if isinstance(o, ResponseText)) == WORDS
    audio = [o.pcm for o in outputs if isinstance(o, ResponseAudio)]
    assert rms(np.concatenate(audio[:40])) == pytest.approx(0.1, abs=0.05)
    assert isinstance(outputs[-1], ResponseDone)
    assert outputs[-1].reason == "completed"
    engine.apply(Respond("s", 2, "item_2", is_standing=True))
    engine.apply(AppendAudio("s", SPEECH))
    assert any(isinstance(output, ResponseAudio) for output in run(engine, clock, 0.6))
    assert engine.apply(Cancel("s", 2))
    assert not run(engine, clock, 1.5)


def test_a_seed_makes_a_twin() -> None:
    """The same one each time, whatever was drawn before, and it leaves the draws alone."""
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = make_twin("moshi", 1, "m").model.lm.state_dict()
    assert torch.equal(torch.rand(1), expected)
    second, other = (make_twin("moshi", seed, "m").model.lm.state_dict() for seed in (1, 2))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert not torch.equal(first["text_head.weight"], other["text_head.weight"])


def said(manner: TwinManner, heard: list[np.ndarray]) -> str:
    """Return what it does frame by frame: `.` silence, `w` a word, `-` none between words."""
    written = ""
    for frame in heard:
        text, *codes = manner.forced(frame).tolist()
        is_silent = codes == [1, 2]
        assert is_silent or codes == [-2, -2]
        written += "." if is_silent else "-" if text == PAD else "w"
    return written


def test_manners() -> None:
    """It waits until the user has spoken and is done, and stops when it is spoken over."""
    loud, quiet = SPEECH[:FRAME], SILENCE
    manner = TwinManner([20, 21], np.array([1, 2]))
    assert said(manner, [quiet] * 6) == "." * 6
    assert said(manner, [loud, loud, quiet, quiet, quiet, quiet]) == "." * 6  # a cough
    assert said(manner, [loud] * 3 + [quiet] * 10) == "......w--w--."
    assert said(manner, [loud] * 3 + [quiet] * 5) == "......w-"
    assert said(manner, [loud, loud, loud, quiet, quiet]) == "-w..."  # noticed in the third frame
    assert said(manner, [quiet] * 3) == ".w-"
    manner.hush()
    assert said(manner, [quiet] * 3) == "..."
