"""What the entry layer benchmark compares."""

import dataclasses

import pytest
import torch

from benchmarks.bench_entry_layer import is_right, measure, variants
from model.transformer.lm import LM
from tests.fakes import tiny


@pytest.fixture(scope="module")
def lm() -> LM:
    """Return a tiny model whose LISTEN steps skip its first layer."""
    torch.manual_seed(0)
    config = dataclasses.replace(
        tiny.LM_CONFIG, audio_entry_layer=1, text_window=8, audio_window=8, rewind_steps=64
    )
    lm = LM(config).eval().requires_grad_(requires_grad=False)
    lm.set_codebook_vectors(torch.randn(3, 16, 8))
    return lm


def test_variants_differ_in_what_is_varied(lm: LM) -> None:
    """Same weights, same windows; entering late and eight bits take less memory."""
    made = variants(lm, 2)
    rows = measure(made, 2, 3)
    assert [(row["entry"], row["kv"]) for row in rows] == [
        (1, "full"),
        (1, "int8"),
        (0, "full"),
        (0, "int8"),
    ]
    assert all(v.lm.layers is lm.layers for v in made)
    assert [row["saved_ms"] for row in rows[2:]] == [0.0, 0.0]
    assert rows[1]["memory_kib"] < rows[0]["memory_kib"] <= rows[2]["memory_kib"]
    assert lm.config.audio_entry_layer == 1


def test_nothing_is_measured_of_a_model_that_is_wrong(
    lm: LM, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate compares steps with the whole sequence."""
    assert is_right(lm)
    broken = variants(lm, 1)[2].lm
    monkeypatch.setattr(broken, "forward", lambda steps: 2 * LM.forward(broken, steps))
    assert not is_right(broken)
    assert "differs from at once by 50.0%" in capsys.readouterr().err
