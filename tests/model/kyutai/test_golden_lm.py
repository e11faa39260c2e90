"""Language models of the family say what Kyutai's own package said: tokens exactly, logits to 1e-4.

The windows of most golden models are shorter than their conversations.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from model.cache.rotary import rope_table
from model.duplex.driver import Duplex, DuplexConfig, DuplexFrame
from model.kyutai.config import KyutaiConfig
from model.kyutai.load import load_lm
from model.transformer.attention import visibility
from model.transformer.condition import Condition, Said, Vectors
from model.transformer.lm import LM
from tests.model.kyutai.teacher import delayed, steps_of, teacher_forced

pytestmark = pytest.mark.golden

ATOL = 1e-4
BF16_STEPS = 2  # of rounding, at the size of the largest value


class Case:
    """One golden model, and what went in and came out."""

    def __init__(self, golden: Path, name: str) -> None:
        self.config = KyutaiConfig.from_dict(json.loads((golden / f"{name}.json").read_text()))
        self.lm: LM = load_lm(golden / f"{name}.weights.safetensors", self.config)
        self.io: Mapping[str, Tensor] = load_file(golden / f"{name}.io.safetensors")

    def duplex(
        self, num_slots: int, guidance: float = 1.0, lag: int = 0, num_attended: int = 0
    ) -> Duplex:
        """Return the model ready for conversations."""
        config = DuplexConfig(delays=self.config.delays, guidance=guidance, lag=lag)
        return Duplex(self.lm, config, num_slots, num_attended=num_attended)


def close(got: Tensor, expected: Tensor) -> None:
    """Compare continuous values."""
    torch.testing.assert_close(got, expected, atol=ATOL, rtol=0)


def check(case: Case, prefix: str, step: int, frame: DuplexFrame, rows: Tensor) -> None:
    """Compare one step of some rows with what came out."""
    names = ("out", "text", "text_logits", "hidden", "audio", "dep_logits")
    io = {n: case.io[prefix + n][step] for n in names if prefix + n in case.io}
    assert torch.equal(frame.tokens, io["out"][rows])
    assert torch.equal(frame.chosen[:, 0], io["text"][rows])
    close(frame.text_logits, io["text_logits"][rows])
    sides = len(io["hidden"]) // len(io["text"])
    both = rows.repeat(sides)
    close(frame.hidden, io["hidden"][both])
    if "audio" in io:
        text, codes = frame.chosen[:, 0], frame.chosen[:, 1:]
        assert torch.equal(codes, io["audio"][rows])
        with torch.no_grad():
            logits = case.lm.depth(frame.hidden, text.repeat(sides), codes.repeat(sides, 1))
        close(logits, io["dep_logits"][both])


ALL = torch.ones(2, dtype=torch.bool)


@pytest.mark.parametrize(
    ("name", "prefix", "user"),
    [("moshi", "gen.", "gen.user"), ("hibiki_zero", "", "user"), ("stt", "", "user")],
)
def test_conversations(golden: Path, name: str, prefix: str, user: str) -> None:
    """Two at once, well past the window."""
    case = Case(golden, name)
    duplex, heard = case.duplex(2), case.io[user]
    for step in range(heard.shape[2]):
        frame = duplex.step([0, 1], heard[:, :, step])
        check(case, prefix, step, frame, ALL)


@pytest.mark.parametrize("slots", [(0, 1), (4, 2)])
def test_conversations_that_wait_and_start_anew(golden: Path, slots: tuple[int, int]) -> None:
    """Each at its own pace, wherever they are."""
    case = Case(golden, "moshi")
    duplex, heard = case.duplex(5), case.io["desync.user"]
    steps = zip(case.io["desync.masks"], case.io["desync.resets"], strict=True)
    for step, (active, reset) in enumerate(steps):
        for row in reset.nonzero().flatten().tolist():
            duplex.reset(slots[row])
        rows = active.nonzero().flatten().tolist()
        if rows:
            frame = duplex.step([slots[row] for row in rows], heard[active, :, step])
            check(case, "desync.", step, frame, active)


@pytest.mark.parametrize(("prefix", "guidance"), [("cfg1.", 1.0), ("cfg3.", 3.0)])
def test_guided_by_a_condition(golden: Path, prefix: str, guidance: float) -> None:
    """What is said of the whole session, followed, and exaggerated away from its opposite."""
    case = Case(golden, "hibiki")
    told = case.lm.conditioners({"description": "very_good"})
    opposite = case.lm.conditioners({"description": "very_bad"})
    untold = case.lm.conditioners({})
    assert told.added is not None
    assert untold.added is not None
    close(told.added, case.io["cond.very_good"][0, 0])
    close(untold.added, case.io["cond.none"][0, 0])
    duplex, heard = case.duplex(2, guidance), case.io["user"]
    for slot in range(2):
        duplex.set_condition(slot, told, opposite)
    for step in range(heard.shape[2]):
        frame = duplex.step([0, 1], heard[:, :, step])
        check(case, prefix, step, frame, ALL)


def voices(case: Case) -> list[Condition]:
    """Return what the rows of the text-to-speech model are told."""
    voice, is_present = case.io["voice"].flatten(1, 2), case.io["voice_mask"].flatten(1)
    conditions = []
    for row in range(2):
        said: dict[str, Said] = {
            "cfg": "2.0", "control": "ok", "speaker_wavs": Vectors(voice[row], is_present[row]),
        }  # fmt: skip
        conditions.append(case.lm.conditioners(said))
    return conditions


def test_a_voice_is_attended_to(golden: Path) -> None:
    """Speech from text: two pieces a step are given, every layer hears the voices."""
    case = Case(golden, "tts")
    told = voices(case)
    duplex = case.duplex(2, num_attended=told[0].num_attended)
    for slot, condition in enumerate(told):
        assert condition.added is not None
        assert condition.attended is not None
        close(condition.added, case.io["cond.sum"][slot, 0])
        close(condition.attended, case.io["cond.cross"][slot])
        duplex.set_condition(slot, condition, None)
    nothing = torch.empty((2, 0), dtype=torch.int64)
    forced = torch.full((2, 1 + case.config.num_made), -2)
    for step in range(case.io["force_text"].shape[1]):
        forced[:, 0] = case.io["force_text"][:, step]
        check(case, "gen.", step, duplex.step([0, 1], nothing, forced), ALL)


def test_a_prompted_voice_one_frame_later(golden: Path) -> None:
    """PersonaPlex: the prompt's frames are forced, and the user's codes are not made."""
    case = Case(golden, "personaplex")
    made = case.config.num_made
    duplex, heard = case.duplex(1, lag=1), case.io["user"]
    num_forced = case.io["forced_text"].shape[1]
    whole = 0
    for call in range(heard.shape[2]):
        forced = torch.full((1, 1 + made), -2)
        if call < num_forced:
            forced[:, 0] = case.io["forced_text"][:, call]
            forced[:, 1:] = case.io["forced_audio"][:, :, call]
        frame = duplex.step([0], heard[:, :, call], forced)
        if call == 0:  # it lags behind the user, and has not begun
            continue
        close(frame.text_logits, case.io["text_logits"][call - 1])
        with torch.no_grad():
            logits = case.lm.depth(frame.hidden, frame.chosen[:, 0], frame.chosen[:, 1:])
        # At first the original tells later codebooks of the first input instead of the codes
        # made, but only where the first input is read instead of what they make.
        compared = 1 if call == 1 else made
        close(logits[:, :compared], case.io["dep_logits"][call - 1][:, :compared])
        if call > num_forced:
            assert torch.equal(frame.chosen, case.io["sampled"][call - 1][:, : 1 + made])
        if (frame.tokens >= 0).all():
            assert torch.equal(frame.tokens, case.io["out"][whole][:, : 1 + made])
            whole += 1
    assert whole == len(case.io["out"])


def test_whole_conversations_at_once(golden: Path) -> None:
    """What was really said is fed, as in training; some of it is nothing, -1."""
    case = Case(golden, "moshi")
    text, logits, is_said = teacher_forced(case.lm, case.config, case.io["train.codes"])
    is_text, is_code = case.io["train.text_mask"][:, 0], case.io["train.mask"]
    close(text[is_text], case.io["train.text_logits"][:, 0][is_text])
    assert is_said[is_code].all()
    close(logits[is_code], case.io["train.logits"][is_code])


def test_a_whole_script_read_in_a_voice(golden: Path) -> None:
    """The same, of a model that is told something."""
    case = Case(golden, "tts")
    told = voices(case)
    state = case.lm.init_state(2, num_attended=told[0].num_attended)
    for slot, condition in enumerate(told):
        case.lm.set_condition(condition, state, slot)
    sequence = delayed(case.config, case.io["train.codes"])
    hidden = case.lm.step(steps_of(case.config, sequence[:, :-1]), state, [0, 1])
    close(case.lm.text_logits(hidden), case.io["train.text_logits"][:, 0])


def test_bf16_rounds_where_the_original_rounds(golden: Path) -> None:
    """Sums and norms to the bit; products to a step of rounding, whose order is the machine's."""
    case = Case(golden, "moshi")
    io = {n.removeprefix("bf16."): t for n, t in case.io.items() if n.startswith("bf16.")}
    lm = load_lm(golden / "moshi.weights.safetensors", case.config, torch.bfloat16)
    steps = steps_of(case.config, io["tokens"].transpose(1, 2))
    layer = lm.layers[0]
    rope = rope_table(steps.position, lm.rope_frequencies)
    mask = visibility(steps.kind, lm.config)[:, None]
    with torch.no_grad():
        assert torch.equal(lm.embed(steps), io["emb_sum"])
        assert torch.equal(layer.norm1(io["emb_sum"]), io["norm1"])
        near(layer.attention(io["norm1"], rope, mask), io["attn"])
        assert torch.equal(layer.norm2(io["emb_sum"] + io["attn"]), io["gating_in"])
        near(layer.mlp(io["gating_in"]), io["gating_out"])
        near(lm(steps), io["hidden"])
        near(lm.text_logits(io["hidden"]), io["text_logits"][:, 0])


def near(got: Tensor, expected: Tensor) -> None:
    """Compare values that may be rounded the other way."""
    assert got.dtype == expected.dtype == torch.bfloat16
    step = float(expected.abs().max()) * torch.finfo(torch.bfloat16).eps
    close_to = (got.float() - expected.float()).abs().max()
    assert close_to <= BF16_STEPS * step, (close_to, step)
