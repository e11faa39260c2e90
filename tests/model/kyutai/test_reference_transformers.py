"""Language models against Moshi of `transformers`: fresh weights and inputs in every run.

It is the other public implementation: trained heads and layers are those of Kyutai's, the file is
another, and so is the code.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model.cache.state import Kind, Steps
from model.codec.mimi import load_mimi
from model.kyutai.load import load_lm
from model.kyutai.transformers import MIMI_PREFIX, read_config
from model.transformer.lm import LM

pytestmark = [
    pytest.mark.reference,
    pytest.mark.filterwarnings("ignore"),  # theirs
    pytest.mark.usefixtures("fresh_seed"),
]

ATOL = 1e-4
NUM_ROWS, NUM_STEPS, NUM_CODEBOOKS, CARD, TEXT_CARD = 2, 16, 4, 64, 60

SIZES: dict[str, Any] = {
    "vocab_size": TEXT_CARD, "audio_vocab_size": CARD, "hidden_size": 64, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": NUM_STEPS,
    "max_position_embeddings": NUM_STEPS, "ffn_dim": 96, "num_codebooks": NUM_CODEBOOKS,
    "depth_decoder_config": {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 48,
    },
    "audio_encoder_config": {
        "model_type": "mimi", "hidden_size": 32, "num_filters": 4, "codebook_size": CARD,
        "codebook_dim": 16, "vector_quantization_hidden_dimension": 16, "num_quantizers": 4,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16,
        "intermediate_size": 48, "upsample_groups": 32,
    },
}  # fmt: skip


@pytest.fixture
def theirs() -> Any:
    """Moshi of `transformers` with random weights, its codec included."""
    package = pytest.importorskip("transformers", reason="needs transformers")
    model = package.MoshiForConditionalGeneration(package.MoshiConfig(**SIZES)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return model


def close(got: Tensor, expected: Tensor) -> None:
    """Compare continuous values."""
    torch.testing.assert_close(got, expected, atol=ATOL, rtol=0)


def say(lm: LM, text: Tensor, made: Tensor, user: Tensor) -> Tensor:
    """Return what the backbone makes of a conversation, one step after the other."""
    state, hidden = lm.init_state(NUM_ROWS), []
    for step in range(text.shape[1]):
        now = slice(step, step + 1)
        steps = Steps(
            text=text[:, now],
            user=user[:, :, now].transpose(1, 2),
            assistant=made[:, :, now].transpose(1, 2),
            kind=torch.full((NUM_ROWS, 1), int(Kind.DUPLEX)),
            position=torch.full((NUM_ROWS, 1), step),
        )
        hidden.append(lm.step(steps, state, range(NUM_ROWS)))
    return torch.cat(hidden, dim=1)


@torch.no_grad()
def test_step_by_step(theirs: Any, tmp_path: Path) -> None:
    """Text logits of every step, the logits of its codes, and the tokens that are largest."""
    theirs.save_pretrained(tmp_path)
    config, mimi = read_config(json.loads((tmp_path / "config.json").read_text()))
    lm = load_lm(tmp_path / "model.safetensors", config)
    # The last row of each table is what a conversation begins with.
    text = torch.randint(TEXT_CARD + 1, (NUM_ROWS, NUM_STEPS))
    shape = (2, NUM_ROWS, NUM_CODEBOOKS, NUM_STEPS)
    made, user = torch.randint(CARD + 1, shape)
    expected = theirs(input_ids=text, moshi_audio_codes=made, user_audio_codes=user)
    hidden = say(lm, text, made, user)
    logits = lm.text_logits(hidden)
    close(logits, expected.logits)
    assert torch.equal(logits.argmax(-1), expected.logits.argmax(-1))
    pieces = torch.randint(TEXT_CARD, (NUM_ROWS, NUM_STEPS))
    codes = torch.randint(CARD, (NUM_ROWS, NUM_STEPS, NUM_CODEBOOKS))
    for step in range(NUM_STEPS):
        depth = theirs.depth_decoder(
            input_ids=torch.cat([pieces[:, step, None], codes[:, step, :-1]], dim=1),
            last_hidden_state=expected.last_hidden_state[:, step : step + 1],
        )
        close(lm.depth(hidden[:, step], pieces[:, step], codes[:, step]), depth.logits)
    codec = load_mimi(tmp_path / "model.safetensors", mimi, prefix=MIMI_PREFIX)
    assert codec.config.num_codebooks == NUM_CODEBOOKS
