"""The meaning of sampling with given noise, in plain PyTorch, on any device."""

from __future__ import annotations

import torch
from torch import Tensor


def sample_tokens(
    logits: Tensor, temperature: float | Tensor, noise: Tensor | None, mask: Tensor | None
) -> Tensor:
    """Choose tokens; arguments as `kernels.sampling.op.sample_tokens`."""
    logits = logits.float()
    if mask is not None:
        logits = logits.masked_fill(~mask, float("-inf"))
    if noise is None:
        return logits.argmax(-1)
    if not isinstance(temperature, Tensor):
        temperature = torch.full(logits.shape[:-1], temperature, device=logits.device)
    is_greedy = temperature == 0
    divisor = temperature.masked_fill(is_greedy, 1.0)[..., None]
    probabilities = torch.softmax(logits / divisor, dim=-1)
    token = logits.sort(dim=-1, descending=True, stable=True).indices[..., : noise.shape[-1]]
    winner = (probabilities.gather(-1, token) / noise).argmax(-1)
    winner = winner.masked_fill(is_greedy, 0)
    return token.gather(-1, winner[..., None]).squeeze(-1)
