"""Memory is worked out from sizes, and is what tensors of these sizes take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from model.codec.mimi import MimiConfig, load_mimi
from model.kyutai.config import KyutaiConfig
from model.kyutai.load import load_lm
from model.kyutai.memory import REACH_FRAMES, Memory, memory_of
from model.precision import Linears
from tests.fakes.kyutai import random_moshi


@pytest.fixture(scope="module")
def moshi() -> Memory:
    """Return Moshi's."""
    return memory_of(KyutaiConfig.from_dict({}), MimiConfig())


def test_moshi(moshi: Memory) -> None:
    """As it is known of the published model."""
    gigabytes = {kind: size / 1e9 for kind, size in moshi.weights.items()}
    assert gigabytes["bf16"] == pytest.approx(15.375, abs=0.001)
    # 7.24 G numbers of hot linears in 8 and in 4.5 bits; 0.44 G of the text head and tables in 16.
    assert gigabytes["int8"] == pytest.approx(7.24 + 0.88, abs=0.02)
    assert gigabytes["nf4"] == pytest.approx(7.24 * 4.5 / 8 + 0.88, abs=0.02)
    # 96 M numbers, less 24 codebooks of 2048 x 256.
    assert moshi.mimi == pytest.approx(4 * (96.15e6 - 24 * 2048 * 256), rel=0.01)
    # 3000 steps of 512 KiB, those that can be taken back, and Mimi's 16.5 MB.
    steps = 3000 + REACH_FRAMES
    assert moshi.session() == pytest.approx(steps * 512 * 1024 + 16.5e6, rel=0.001)


def test_sessions_and_windows(moshi: Memory) -> None:
    """A session costs its window; eight bits are half of it and the scales."""
    state = moshi.mimi_session
    assert moshi.session(750) - moshi.session(749) == 512 * 1024
    assert moshi.session(3000) == moshi.session()
    assert moshi.session(kv_bits=8) - state == (moshi.session() - state) * 130 // 256
    one, more = moshi.total("nf4", 1), moshi.total("nf4", 64)
    assert more - one == 63 * moshi.session()
    assert one == moshi.weights["nf4"] + moshi.mimi + moshi.session()


@pytest.mark.parametrize("linears", ["dense", "int8", "nf4", "bitsandbytes"])
def test_a_model_in_memory_is_as_large(golden: Path, tmp_path: Path, linears: Linears) -> None:
    """All its parameters and buffers, however the linears are held."""
    config, path = random_moshi(golden, tmp_path)
    mimi_config = MimiConfig.from_kyutai(json.loads((golden / "mimi.json").read_text()))
    lm = load_lm(path, config, torch.bfloat16, linears=linears)
    memory = memory_of(config, mimi_config)
    held = sum(tensor.nbytes for tensor in lm.state_dict().values())
    names = {"dense": "bf16", "bitsandbytes": "nf4"}
    assert memory.weights[names.get(linears, linears)] == held
    step_bytes = memory.session(2) - memory.session(1)
    heads = 2 * lm.config.num_layers * lm.config.num_kv_heads
    assert step_bytes == heads * lm.config.head_dim * 2
    mimi = load_mimi(
        golden / "mimi.weights.safetensors", mimi_config, num_codebooks=config.num_mimi_codebooks
    )
    streams = mimi.init_encoder_state(1).num_bytes + mimi.init_decoder_state(1).num_bytes
    assert memory.mimi_session == streams
