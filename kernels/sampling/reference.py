"""The meaning of sampling with given noise, in plain PyTorch, on any device.

    token = argmax over candidates r of softmax(logits / temperature)[r] / noise[r]

Source: Maddison et al. 2014, "A* sampling", section 2 (the exponential race, as Gumbels).
"""

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
    is_greedy = temperature == 0  # [...]
    divisor = temperature.masked_fill(is_greedy, 1.0)[..., None]  # [..., 1]
    probabilities = torch.softmax(logits / divisor, dim=-1)  # [..., V]
    # [..., K] candidates. The sort is stable: of equal logits the lower token comes first.
    token = logits.sort(dim=-1, descending=True, stable=True).indices[..., : noise.shape[-1]]
    winner = (probabilities.gather(-1, token) / noise).argmax(-1)  # [...]
    winner = winner.masked_fill(is_greedy, 0)
    return token.gather(-1, winner[..., None]).squeeze(-1)
