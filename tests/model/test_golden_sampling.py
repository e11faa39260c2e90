"""Choosing tokens is what Kyutai's own package did with the very same noise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model.sampling import Sampling
from model.transformer.sampling import sample


@pytest.mark.golden
@pytest.mark.parametrize("what", ["text", "audio"])
def test_the_noise_decides_alike(golden: Path, what: str) -> None:
    """Temperature, then the most probable, not renormalised, then the exponential race."""
    settings = json.loads((golden / "sampling.json").read_text())[what]
    io = load_file(golden / "sampling.io.safetensors")
    logits, noise = io[f"{what}.logits"], io[f"{what}.noise"]
    sampling = Sampling(temperature=settings["temp"], top_k=settings["top_k"])
    noise = noise.view(*logits.shape[:-1], -1)
    token = sample(logits, sampling, noise)
    assert torch.equal(token, io[f"{what}.token"].view(token.shape))
    # The noise may happen to choose the most probable token, which stands first. It matters all the
    # same: with much noise there, another is chosen.
    noise[..., 0] = 1e30
    assert (sample(logits, sampling, noise) != sample(logits)).all()
