"""A tiny random model behind a real engine, on a clock that only moves when told."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from model.codec.mel import MelCodec
from model.config import LMConfig
from model.engine.config import EngineConfig
from model.transformer.lm import LM
from model.turns.engine import TickEngine
from model.turns.steps import TurnLimits
from model.vocabulary import TurnVocabulary
from tests.fakes import tiny
from tests.fakes.writer import WriterHere

WORDS = [f"▁w{i}" for i in range(12)] + [f"x{i}" for i in range(3)]
PIECES = [f"<{i}>" for i in range(17)] + WORDS
SEEING_PIECES = [f"<{i}>" for i in range(22)] + WORDS

# Of all random codecs, one with which the model below has something to say.
CODEC_CONFIG = replace(tiny.CODEC_CONFIG, semantic_dim=8, hop_channels=8)
# Windows so small that every conversation fills them.
LM_CONFIG = replace(
    tiny.LM_CONFIG,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    text_vocab=len(PIECES),
    audio_entry_layer=1,
    text_window=12,
    audio_window=10,
    prefix_steps=2,
    rewind_steps=9,
    depth_dim=16,
    depth_heads=2,
    depth_ff=24,
)
# The same with a picture of four patches and a head for ends of turns.
SEEING_CONFIG = replace(
    LM_CONFIG, text_vocab=len(SEEING_PIECES), has_end_head=1, picture_size=8, patch_size=4
)
# A random model rarely ends anything by itself.
LIMITS = TurnLimits(
    max_prefill_steps=8,
    max_transcript_pieces=5,
    max_reply_pieces=4,
    frames_per_piece=1,
    max_tail_frames=3,
)


@dataclass
class FakeClock:
    """Seconds that pass only when a test says so."""

    now_s: float = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


def encode(text: str) -> list[int]:
    """Return the pieces of words w0 to w11; other words have none."""
    return [PIECES.index(f"▁{word}") for word in re.findall(r"\bw(?:1[01]|\d)\b", text)]


def encode_seeing(text: str) -> list[int]:
    """Return the pieces of words for a model that sees."""
    return [piece + 5 for piece in encode(text)]


@pytest.fixture(scope="session")
def lm() -> LM:
    """Return a random model in double precision, so that no batch size tips a close call."""
    return _random(LM_CONFIG)


@pytest.fixture(scope="session")
def seeing_lm() -> LM:
    """Return the same of a model that sees, and is more or less sure of ends of turns."""
    return _random(SEEING_CONFIG)


def _random(config: LMConfig) -> LM:
    torch.manual_seed(3)
    lm = LM(config).eval()
    for audio in (lm.user_emb, lm.assistant_emb):
        torch.nn.init.normal_(audio.get_parameter("semantic_emb.weight"))
    lm.set_codebook_vectors(torch.randn(3, 16, 8))
    return lm.double().requires_grad_(False)


@pytest.fixture(scope="session")
def codec() -> MelCodec:
    """Return a random codec."""
    torch.manual_seed(4)
    return MelCodec(CODEC_CONFIG).eval()


@pytest.fixture(scope="session")
def vocabulary() -> TurnVocabulary:
    """Return a few words and two voices."""
    return TurnVocabulary(pieces=PIECES, encode=encode, voices={"ann": 9, "bob": 10})


@pytest.fixture
def clock() -> FakeClock:
    """Return the engine's clock."""
    return FakeClock()


@pytest.fixture
def make_engine(
    lm: LM, seeing_lm: LM, codec: MelCodec, vocabulary: TurnVocabulary, clock: FakeClock
) -> Callable[..., TickEngine]:
    """Return a maker of engines, of a model that sees if told so; settings by name."""
    seeing = replace(vocabulary, pieces=SEEING_PIECES, encode=encode_seeing, num_special=22)

    def make(
        *, limits: dict[str, Any] | None = None, sees: bool = False, **settings: object
    ) -> TickEngine:
        config = EngineConfig(**settings)  # type: ignore[arg-type]  # test shorthand
        changed = replace(LIMITS, **(limits or {}))
        chosen = seeing if sees else vocabulary
        return TickEngine(
            seeing_lm if sees else lm,
            codec,
            chosen,
            config,
            clock=clock,
            limits=changed,
            writer=WriterHere(chosen),
        )

    return make
