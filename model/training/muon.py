"""Muon, whose costly part the workers share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from model.training.parallel import gather, rank, world_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Newton and Schulz's iteration for the orthogonal part of a matrix, five times.
# Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks".
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_LEAST_NORM = 1e-7


def orthogonal(matrix: Tensor) -> Tensor:
    """Return about the orthogonal matrix nearest to `matrix`, in bf16."""
    a, b, c = _COEFFICIENTS
    x = matrix.bfloat16()
    is_tall = x.shape[0] > x.shape[1]
    if is_tall:
        x = x.T
    x = x / x.norm().clamp(min=_LEAST_NORM)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x


def shares(sizes: Sequence[int], count: int) -> list[list[int]]:
    """Share things out so that all have about the same: the largest first, each to who has least.

    Args:
        sizes: of the things.
        count: of who shares.

    Returns:
        Numbers of things, for each.
    """
    # A worked example: 5, 4, 3, 3 for two. The first takes 5, the second 4 and 3, the first 3.
    found: list[list[int]] = [[] for _ in range(count)]
    loads = [0] * count
    for number in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        least = loads.index(min(loads))
        found[least].append(number)
        loads[least] += sizes[number]
    return found


class Muon(torch.optim.Muon):
    """`torch.optim.Muon`, whose matrices are made orthogonal by one worker each.

    All workers have the same gradients and would compute the same; the result is the same, too.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take a step with the gradients that are there."""
        assert closure is None, "gradients are there"
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            updates = []
            for weight in weights:
                state = self.state[weight]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(weight)
                momentum = state["momentum_buffer"].lerp_(weight.grad, 1 - group["momentum"])
                updates.append(weight.grad.lerp(momentum, group["momentum"]))
            for weight, update in zip(weights, _orthogonal(updates), strict=True):
                # As large, in the mean square, as AdamW's steps are.
                # Source: Liu et al. 2025, "Muon is scalable for LLM training", section 2.2.
                rate = group["lr"] * 0.2 * max(weight.shape) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update, alpha=-rate)


def _orthogonal(matrices: list[Tensor]) -> list[Tensor]:
    """Make all matrices orthogonal, this worker its share of them."""
    parts = shares([m.numel() for m in matrices], world_size())
    mine = [orthogonal(matrices[i]).contiguous() for i in parts[rank()]]
    if world_size() == 1:
        made = mine
    else:
        longest = max(sum(matrices[i].numel() for i in part) for part in parts)
        sent = torch.zeros(longest, dtype=torch.bfloat16)
        flat = torch.cat([m.flatten() for m in mine])
        sent[: len(flat)] = flat
        made = []
        for part, got in zip(parts, gather(sent), strict=True):
            sizes = [matrices[i].numel() for i in part]
            pieces = torch.split(got[: sum(sizes)], sizes)
            made += [p.view_as(matrices[i]) for i, p in zip(part, pieces, strict=True)]
    order = [i for part in parts for i in part]
    return [found for _, found in sorted(zip(order, made, strict=True), key=lambda pair: pair[0])]
