"""Whole conversations fed at once, with what was really said in the place of what is chosen."""

from __future__ import annotations

import torch
from torch import Tensor

from model.cache.state import Kind, Steps
from model.kyutai.config import KyutaiConfig
from model.transformer.lm import LM


@torch.no_grad()
def delayed(config: KyutaiConfig, tokens: Tensor) -> Tensor:
    """Return streams as the model takes and makes them, after the first input.

    Args:
        config: for the delays.
        tokens: int64 [B, 1 + codebooks, T], each stream in time.

    Returns:
        int64 [B, 1 + T, 1 + codebooks]; the n-th step reads [:, n] and makes [:, n + 1].
    """
    batch, streams, num_steps = tokens.shape
    first = torch.tensor([config.text_card] + [config.card] * (streams - 1))
    sequence = first.repeat(batch, 1 + num_steps, 1)
    for stream, delay in enumerate(config.delays):
        sequence[:, 1 + delay :, stream] = tokens[:, stream, : num_steps - delay]
    return sequence


def steps_of(config: KyutaiConfig, sequence: Tensor) -> Steps:
    """Return the inputs ``[B, T, 1 + codebooks]`` of a model of the family as its steps."""
    made = 1 + config.num_made
    return Steps(
        text=sequence[..., 0],
        user=sequence[..., made:],
        assistant=sequence[..., 1:made],
        kind=torch.full(sequence.shape[:2], int(Kind.DUPLEX)),
        position=torch.arange(sequence.shape[1]).expand(len(sequence), -1),
    )


@torch.no_grad()
def teacher_forced(lm: LM, config: KyutaiConfig, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the model says of each token, in the order of the streams' own time.

    Args:
        lm: the model.
        config: its sizes.
        tokens: int64 [B, 1 + codebooks, T].

    Returns:
        Text logits [B, T, text_out], code logits [B, K, T, card], and bool [B, K, T], for which
        codes there are logits: not for the last ones of a stream that comes late.
    """
    sequence, made = delayed(config, tokens), config.num_made
    hidden = lm(steps_of(config, sequence[:, :-1]))
    text = lm.text_logits(hidden)
    batch, num_steps = text.shape[:2]
    logits = torch.empty(batch, made, num_steps, config.card)
    is_said = torch.zeros(batch, made, num_steps, dtype=torch.bool)
    if made:
        said = sequence[:, 1:].flatten(0, 1)
        depth = lm.depth(hidden.flatten(0, 1), said[:, 0], said[:, 1 : 1 + made])
        for k, delay in enumerate(config.delays[1 : 1 + made]):
            of_codebook = torch.unflatten(depth[:, k], 0, (batch, num_steps))
            logits[:, k, : num_steps - delay] = of_codebook[:, delay:]
            is_said[:, k, : num_steps - delay] = True
    return text, logits, is_said
