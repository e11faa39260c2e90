"""Choosing tokens from logits: greedy, or temperature and top-k with explicit noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.sampling import sample_tokens
from model.sampling import GREEDY, Sampling


def sample(logits: Tensor, sampling: Sampling = GREEDY, noise: Tensor | None = None) -> Tensor:
    """Choose one token per row.

    The top-k is taken on probabilities without renormalising, then the largest p / noise wins:
    with Exp(1) noise that is an exact draw from the k candidates.

    Args:
        logits: float [..., vocab].
        sampling: temperature and top-k.
        noise: float [..., num_candidates], Exp(1) draws; needed unless greedy.

    Returns:
        int64 [...].

    Source: the exponential race, e.g. Maddison et al. 2014, A* sampling, section 2.
    """
    if sampling.backend != "reference":
        greedy = sampling.temperature == 0.0
        return sample_tokens(
            logits, sampling.temperature, None if greedy else noise, backend=sampling.backend
        )
    if sampling.temperature == 0.0:
        return logits.argmax(dim=-1)
    assert noise is not None, "a draw needs noise"
    # A worked example: the two likeliest tokens have p = 0.6 and 0.3, and their noise is 1.2 and
    # 0.4. The races are 0.6 / 1.2 = 0.5 and 0.3 / 0.4 = 0.75, so the second token is drawn. Over
    # many draws it wins in a third of the cases, 0.3 / (0.6 + 0.3), as it should.
    probabilities = torch.softmax(logits.float() / sampling.temperature, dim=-1)
    num_candidates = sampling.num_candidates(logits.shape[-1])
    top, token = probabilities.topk(num_candidates, dim=-1)
    winner = (top / noise).argmax(dim=-1, keepdim=True)
    return token.gather(-1, winner).squeeze(-1)


def guide(logits: Tensor, guidance: float) -> Tensor:
    """Go from what a model says unconditioned towards what it says conditioned, and beyond.

    Args:
        logits: float [2 * n, ...], conditioned rows and then the same ones without a condition;
            [n, ...] if `guidance` is 1.
        guidance: 1 is what the condition says.

    Returns:
        float [n, ...].

    Source: Ho and Salimans 2022, Classifier-free diffusion guidance.
    """
    if guidance == 1.0:
        return logits
    # A logit of 1.4 with the condition and 1.0 without it becomes 1.0 + 0.4 * 3 = 2.2 with guidance
    # 3: what the condition makes likelier is made likelier still.
    conditioned, without = logits.chunk(2)
    return without + (conditioned - without) * guidance


def draw_noise(generators: Sequence[torch.Generator], shape: Sequence[int]) -> Tensor:
    """Draw Exp(1) noise, row i from generator i, so that a row does not depend on its batch.

    Args:
        generators: one per row, on the CPU.
        shape: of one row.

    Returns:
        float32 [rows, *shape].
    """
    rows = [torch.empty(tuple(shape)).exponential_(generator=g) for g in generators]
    return torch.stack(rows)
