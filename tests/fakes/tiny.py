"""A model and a codec that compute in milliseconds, with the shapes of real ones."""

from __future__ import annotations

from dataclasses import replace

import torch

from model.codec.mel import MelCodec, MelCodecConfig
from model.config import LMConfig
from model.transformer.lm import LM

CODEC_CONFIG = MelCodecConfig(
    codebook_size=16,
    num_acoustic=2,
    semantic_dim=4,
    acoustic_dim=8,
    channels=16,
    encoder_blocks=1,
    decoder_blocks=1,
    hop_channels=16,
    hop_blocks=1,
)
LM_CONFIG = LMConfig(
    dim=32,
    num_layers=2,
    ff_dim=48,
    text_vocab=80,
    num_codebooks=3,
    codebook_size=16,
    audio_rank=8,
    delays=(0, 1, 1),
    depth_dim=32,
    depth_layers=1,
    depth_ff=48,
)


def make_codec() -> MelCodec:
    """Return a random codec in evaluation mode."""
    torch.manual_seed(1)
    return MelCodec(CODEC_CONFIG).eval()


def make_lm(text_vocab: int | None = None, **sizes: int) -> LM:
    """Return a random language model in evaluation mode, for the codec's codes.

    Args:
        text_vocab: text pieces, if not as many as usual.
        sizes: other sizes that are not as usual, by name.
    """
    torch.manual_seed(0)
    config = replace(LM_CONFIG, text_vocab=text_vocab or LM_CONFIG.text_vocab, **sizes)  # type: ignore[arg-type]
    lm = LM(config).eval()
    lm.set_codebook_vectors(torch.randn(3, 16, 8))
    return lm
