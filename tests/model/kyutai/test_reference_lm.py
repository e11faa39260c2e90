"""Language models against Kyutai's own package: fresh weights and inputs in every run.

Theirs runs first and is written down; ours must then choose the same tokens, fp32 and greedy, from
logits within 1e-4. `make test-reference` installs their package; without it these tests are
skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.reference import our_lm, their_lm
from model.duplex.driver import Duplex, DuplexConfig, DuplexFrame
from model.kyutai.config import KyutaiConfig
from model.transformer.condition import Said, Vectors
from model.transformer.lm import LM
from tests.model.kyutai.teacher import teacher_forced
from tests.model.kyutai.theirs import UNDECIDED, Run, Step

pytestmark = [
    pytest.mark.reference,
    pytest.mark.filterwarnings("ignore"),  # theirs
    pytest.mark.usefixtures("fresh_seed", "moshi_package"),
]

ATOL = 1e-4
# A choice between two logits that are nearer than this is nobody's to make: another draw is used.
NEAR_TIE = 1e-5
MOST_DRAWS = 5
WINDOW = 8
NUM_STEPS = 3 * WINDOW  # the ring goes round more than twice
NUM_ROWS = 3

Values = dict[str, Any]

MOSHI: Values = {
    "card": 40, "text_card": 50, "existing_text_padding_id": 3, "dim": 64, "num_heads": 4,
    "num_layers": 3, "hidden_scale": 4.125, "causal": True, "layer_scale": None, "context": WINDOW,
    "max_period": 10_000, "gating": "silu", "norm": "rms_norm_f32", "positional_embedding": "rope",
    "depformer_dim": 32, "depformer_num_heads": 4, "depformer_num_layers": 2,
    "depformer_dim_feedforward": 132, "depformer_multi_linear": True, "depformer_pos_emb": "none",
    "depformer_weights_per_step": True, "n_q": 16, "dep_q": 8,
    "delays": [0, 0, *[1] * 7, 0, *[1] * 7], "model_type": "moshi",
}  # fmt: skip
PERSONAPLEX = MOSHI | {"dep_q": 16, "model_type": "personaplex"}
HIBIKI = MOSHI | {
    "n_q": 32, "dep_q": 16, "delays": [0, 0, *[2] * 15, 0, *[2] * 15], "max_period": 100_000,
    "depformer_low_rank_embeddings": 8,
    "depformer_weights_per_step_schedule": [*range(8), *[8] * 8], "model_type": "hibiki",
    "conditioners": {
        "description": {
            "type": "lut",
            "lut": {
                "n_bins": 9, "dim": 16, "tokenizer": "noop", "possible_values": ["bad", "good"],
            },
        }
    },
    "fuser": {"cross_attention_pos_emb": False, "sum": ["description"]},
}  # fmt: skip
HIBIKI_ZERO = MOSHI | {
    "n_q": 32, "dep_q": 16, "delays": [0, 0, *[2] * 15, 0, *[2] * 15], "max_period": 20_000,
    "positional_embedding": "rope_concat", "kv_repeat": 2, "depformer_kv_repeat": 1,
    "hidden_scale": 6.0, "depformer_dim_feedforward": None, "depformer_norm": "layer_norm",
    "depformer_weights_per_step_schedule": [*range(8), *[8] * 8], "model_type": "hibiki",
}  # fmt: skip
STT = MOSHI | {
    "n_q": 32, "dep_q": 0, "delays": [0] * 33, "max_period": 100_000,
    "extra_heads_num_heads": 4, "extra_heads_dim": 6, "model_type": "stt",
}  # fmt: skip
TTS = MOSHI | {
    "n_q": 16, "dep_q": 16, "delays": [0, 0, *[2] * 15], "demux_second_stream": True,
    "depformer_low_rank_embeddings": 8, "cross_attention": True, "model_type": "tts",
    "depformer_weights_per_step_schedule": [*range(8), *[8] * 4, *[9] * 4],
    "conditioners": {
        "speaker_wavs": {"type": "tensor", "tensor": {"dim": 12}},
        "cfg": {
            "type": "lut",
            "lut": {
                "n_bins": 7, "dim": 16, "tokenizer": "noop", "possible_values": ["1.0", "2.0"],
            },
        },
        "control": {
            "type": "lut",
            "lut": {"n_bins": 1, "dim": 64, "tokenizer": "noop", "possible_values": ["ok"]},
        },
    },
    "fuser": {
        "cross_attention_pos_emb": True, "cross_attention_pos_emb_scale": 0.7,
        "sum": ["control", "cfg"], "cross": ["speaker_wavs"],
    },
}  # fmt: skip


def draw(make: Callable[[], Run]) -> Run:
    """Return a run whose every choice is clear."""
    for _ in range(MOST_DRAWS):
        run = make()
        if run.smallest_margin() > NEAR_TIE:
            return run
    pytest.fail(f"{MOST_DRAWS} draws and always a tie: the models say nothing")


def close(got: Tensor, expected: Tensor) -> None:
    """Compare continuous values."""
    torch.testing.assert_close(got, expected, atol=ATOL, rtol=0)


def repeat(run: Run, slots: Sequence[int], lag: int = 0) -> None:
    """Let ours do what theirs did, and compare every step.

    Args:
        run: theirs.
        slots: ours, one a row.
        lag: as `DuplexConfig.lag`; what theirs did in step s is then asked of ours in call s + lag.
    """
    config = KyutaiConfig.from_dict(run.values)
    lm = our_lm(run.theirs, run.values)
    drive = DuplexConfig(delays=config.delays, guidance=run.guidance, lag=lag)
    told = [lm.conditioners(said) for said in run.told]
    untold = [lm.conditioners(said) for said in run.untold] or told
    num_attended = told[0].num_attended if told else 0
    duplex = Duplex(lm, drive, max(slots) + 1, num_attended=num_attended)
    for slot, condition, without in zip(slots, told, untold, strict=bool(told)):
        duplex.set_condition(slot, condition, without)
    for call in range(lag):
        duplex.step(slots, *inputs(run, config, call - lag))
    for index, step in enumerate(run.steps):
        for row in run.reset[:, index].nonzero().flatten().tolist():
            duplex.reset(slots[row])
        active = run.active[:, index]
        rows = active.nonzero().flatten().tolist()
        if rows:
            user, forced = inputs(run, config, index)
            frame = duplex.step([slots[row] for row in rows], user[rows], forced[rows])
            compare(lm, step, frame, active)


def inputs(run: Run, config: KyutaiConfig, step: int) -> tuple[Tensor, Tensor]:
    """Return what ours is given for a step of theirs: the user's codes, and what is forced.

    Ours is given whole frames and lets each stream come late; theirs was forced step by step.
    """
    made, num_steps = config.num_made, len(run.steps)
    forced = torch.full((len(run.user), len(config.delays)), UNDECIDED)
    if run.forced is not None:
        for stream in range(run.forced.shape[1]):
            when = step + config.delays[stream]
            if 0 <= when < num_steps:
                forced[:, stream] = run.forced[:, stream, when]
    # What the model makes of the user's codes and throws away, ours takes as the user's.
    user = torch.cat([forced[:, 1 + made : 1 + config.num_generated], run.user[:, :, step]], dim=1)
    return user.clamp(min=0), forced[:, : 1 + made]


def compare(lm: LM, theirs: Step, ours: DuplexFrame, active: Tensor) -> None:
    """Compare one step of the rows that took it."""
    streams = ours.chosen.shape[1]
    assert torch.equal(ours.chosen, theirs.chosen[active, :streams])
    assert torch.equal(ours.tokens, theirs.tokens[active, :streams])
    assert ours.hidden is not None
    assert ours.text_logits is not None
    sides = len(theirs.hidden) // len(theirs.chosen)
    both = active.repeat(sides)
    close(ours.hidden, theirs.hidden[both])
    close(ours.text_logits, theirs.text_logits[active])
    with torch.no_grad():
        if theirs.depth_logits is not None:
            chosen = ours.chosen.repeat(sides, 1)
            logits = lm.depth(ours.hidden, chosen[:, 0], chosen[:, 1:])
            close(logits, theirs.depth_logits[both, : streams - 1])


def users(values: Values) -> Tensor:
    """Draw what the users say, int64 [B, codebooks that are not made, T]."""
    return torch.randint(values["card"], (NUM_ROWS, values["n_q"] - values["dep_q"], NUM_STEPS))


@pytest.mark.parametrize("values", [MOSHI, HIBIKI_ZERO, STT], ids=["moshi", "hibiki_zero", "stt"])
def test_conversations(values: Values) -> None:
    """Several at once, until the ring has gone round more than twice."""
    run = draw(lambda: Run(theirs=their_lm(values), values=values, user=users(values)))
    repeat(run, range(NUM_ROWS))


@pytest.mark.parametrize("values", [MOSHI, HIBIKI_ZERO, STT], ids=["moshi", "hibiki_zero", "stt"])
def test_conversations_out_of_step(values: Values) -> None:
    """Each pauses and begins anew at random, in whatever slot."""

    def make() -> Run:
        return Run(
            theirs=their_lm(values),
            values=values,
            user=users(values),
            active=torch.rand(NUM_ROWS, NUM_STEPS) < 0.7,
            reset=torch.rand(NUM_ROWS, NUM_STEPS) < 0.05,
        )

    repeat(draw(make), torch.randperm(NUM_ROWS + 2)[:NUM_ROWS].tolist())


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_guided_by_a_condition(guidance: float) -> None:
    """Hibiki: low-rank embeddings, 16 depth steps in 9 sets, each row told something else."""

    def make() -> Run:
        return Run(
            theirs=their_lm(HIBIKI),
            values=HIBIKI,
            user=users(HIBIKI),
            guidance=guidance,
            told=[{"description": "good"}, {"description": "bad"}, {}],
            untold=[{}, {"description": "good"}, {}],
        )

    repeat(draw(make), range(NUM_ROWS))


def test_a_voice_is_attended_to() -> None:
    """Text to speech: two pieces a step, mostly given; every layer hears the voices."""

    def voice() -> dict[str, Said]:
        return {
            "speaker_wavs": Vectors(torch.randn(10, 12), torch.rand(10) < 0.7),
            "cfg": "2.0",
            "control": "ok",
        }

    def make() -> Run:
        pieces = TTS["text_card"] + 1
        forced = torch.full((NUM_ROWS, 1 + TTS["dep_q"], NUM_STEPS), UNDECIDED)
        forced[:, 0] = torch.randint(pieces * pieces, (NUM_ROWS, NUM_STEPS))
        forced[:, 0][torch.rand(NUM_ROWS, NUM_STEPS) < 0.2] = UNDECIDED
        told = [voice() for _ in range(NUM_ROWS)]
        return Run(theirs=their_lm(TTS), values=TTS, user=users(TTS), forced=forced, told=told)

    repeat(draw(make), range(NUM_ROWS))


def test_sixteen_depth_steps_of_which_eight_count() -> None:
    """PersonaPlex: a prompt is forced, the user's codes are made and replaced; ours skips them."""
    num_prompt = WINDOW + 2

    def make() -> Run:
        streams = 1 + PERSONAPLEX["dep_q"]
        forced = torch.randint(PERSONAPLEX["card"], (NUM_ROWS, streams, NUM_STEPS))
        forced[:, : 1 + PERSONAPLEX["n_q"] // 2, num_prompt:] = UNDECIDED
        return Run(
            theirs=their_lm(PERSONAPLEX),
            values=PERSONAPLEX,
            user=users(PERSONAPLEX),
            forced=forced,
        )

    repeat(draw(make), range(NUM_ROWS), lag=1)


@pytest.mark.parametrize(
    "values", [MOSHI, PERSONAPLEX, HIBIKI_ZERO], ids=["moshi", "personaplex", "hibiki_zero"]
)
def test_teacher_forced(values: Values) -> None:
    """Whole sequences at once, as in training."""
    theirs, config = their_lm(values), KyutaiConfig.from_dict(values)
    tokens = torch.randint(values["card"], (NUM_ROWS, 1 + values["n_q"], NUM_STEPS))
    text, logits, is_said = teacher_forced(our_lm(theirs, values), config, tokens)
    with torch.no_grad():
        expected = theirs(tokens)
    made = config.num_made
    close(text, expected.text_logits[:, 0])
    assert torch.equal(is_said, expected.mask[:, :made])
    close(logits[is_said], expected.logits[:, :made][is_said])


@pytest.mark.parametrize("values", [MOSHI, HIBIKI_ZERO], ids=["moshi", "hibiki_zero"])
def test_bf16(values: Values) -> None:
    """In bf16 ours is no further from fp32 than twice what theirs is."""
    exact, config = their_lm(values), KyutaiConfig.from_dict(values)
    rounded = {name: tensor.to(torch.bfloat16) for name, tensor in exact.state_dict().items()}
    exact.load_state_dict(rounded)
    tokens = torch.randint(values["card"], (NUM_ROWS, 1 + values["n_q"], NUM_STEPS))
    text, logits, is_said = teacher_forced(our_lm(exact, values, torch.bfloat16), config, tokens)
    with torch.no_grad():
        reference, theirs = exact(tokens), exact.to(torch.bfloat16)(tokens)
    made = config.num_made
    for ours, other, truth in (
        (text, theirs.text_logits[:, 0], reference.text_logits[:, 0]),
        (logits[is_said], *(r.logits[:, :made][is_said] for r in (theirs, reference))),
    ):
        error, allowed = ((x.float() - truth).abs().max() for x in (ours, other))
        assert error <= 2 * allowed
