"""Duplex models that compute in milliseconds: they decide everything themselves, greedily."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from model.assemble.kyutai import Driven, Voices, make_parts
from model.codec.mimi import Mimi, MimiConfig
from model.duplex.engine import DuplexParts
from model.duplex.prompt import Tones, Voice
from model.kyutai.config import KyutaiConfig
from model.kyutai.memory import REACH_FRAMES
from model.pieces import TextPieces
from model.sampling import GREEDY, Sampling
from model.transformer.lm import LM
from tests.fakes.pieces import make_pieces

PIECES = TextPieces(make_pieces())
FRAME = 16
# Sixteen samples are a frame of 80 ms.
MIMI = MimiConfig(
    sample_rate_hz=200,
    ratios=(4, 2),
    filters=2, dim=16, num_layers=1, num_heads=2, ff_dim=32, window=6, codebook_size=16,
    codebook_dim=8, num_codebooks=3,
)  # fmt: skip
# A window so small that every conversation fills it.
LM_VALUES: dict[str, Any] = {
    "dim": 32,
    "num_heads": 2,
    "num_layers": 2,
    "hidden_scale": 4.125,
    "context": 12,
    "max_period": 10_000,
    "card": MIMI.codebook_size,
    "text_card": len(PIECES),
    "n_q": 6,
    "dep_q": 3,
    "delays": [0, 0, 1, 1, 0, 1, 1],
    "depformer_dim": 16,
    "depformer_num_heads": 2,
    "depformer_num_layers": 1,
}
CONDITIONERS: dict[str, Any] = {
    "description": {
        "type": "lut",
        "lut": {
            "n_bins": 7,
            "dim": 8,
            "tokenizer": "noop",
            "possible_values": ["very_bad", "bad", "neutral", "good", "very_good"],
        },
    }
}
OWN: dict[str, dict[str, Any]] = {
    "moshi": {},
    "personaplex": {"dep_q": 6, "context": 24},  # so that the prompt is remembered for a while
    "hibiki": {
        "delays": [0, 0, 2, 2, 0, 2, 2],
        "conditioners": CONDITIONERS,
        "fuser": {"sum": ["description"]},
    },
}


def config_of(kind: str) -> KyutaiConfig:
    """Return a small model's sizes."""
    return KyutaiConfig.from_dict({**LM_VALUES, **OWN[kind], "model_type": kind})


def voice(name: str) -> Voice:
    """Return the codes of a voice, different for each name."""
    codes = np.random.default_rng(ord(name[0])).integers(MIMI.codebook_size, size=(3, 3))
    return Voice(codes=codes)


def make_small_parts(
    kind: str, *, guidance: float = 1.0, sampling: Sampling = GREEDY, dtype: str = "float64"
) -> DuplexParts:
    """Return a random model; in double precision, no size of a batch tips a close call.

    Args:
        kind: "moshi", "personaplex" or "hibiki".
        guidance: of the conditions.
        sampling: of text and codes.
        dtype: of the weights.
    """
    config = config_of(kind)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(3)
        lm = LM(config.lm(REACH_FRAMES)).eval().requires_grad_(requires_grad=False)
        mimi = Mimi(MIMI).eval().requires_grad_(requires_grad=False)
    lm, mimi = lm.to(getattr(torch, dtype)), mimi.to(getattr(torch, dtype))
    num_user = config.num_codebooks - config.num_made
    tones = Tones(np.array([1, 2, 3])[: config.num_made], np.array([4, 5, 6])[:num_user])
    names: tuple[str, ...] = ("ann", "eve") if kind == "personaplex" else ("voice",)
    load: Callable[[str], Voice | None] = voice if kind == "personaplex" else lambda _name: None
    driven = Driven(config, lm, mimi, PIECES, tones, Voices(load, names))
    return make_parts(driven, kind, guidance=guidance, sampling=(sampling, sampling))


def with_talk(parts: DuplexParts, **rules: Any) -> DuplexParts:
    """Return the same model with other rules of talk."""
    talk = replace(parts.rules.talk, **rules)
    return replace(parts, rules=replace(parts.rules, talk=talk))
