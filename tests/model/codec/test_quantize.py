"""Codebooks learn their data, residual stacks refine, absent codes are silent."""

from __future__ import annotations

import torch

from model.codec.quantize import Codebook, ResidualQuantizer


def test_search_finds_the_nearest_vector() -> None:
    """The code is the argmin of the Euclidean distance."""
    torch.manual_seed(0)
    book, x = Codebook(50, 6), torch.randn(200, 6)
    assert torch.equal(book.search(x), torch.cdist(x, book.vectors).argmin(1))


def test_every_level_leaves_less() -> None:
    """Each codebook of a fitted stack lowers the error."""
    torch.manual_seed(0)
    x = torch.randn(2000, 8)
    stack = ResidualQuantizer(4, 32, 8)
    stack.initialise(x)
    codes = stack.encode(x)
    errors = []
    for used in range(5):
        kept = codes.clone()
        kept[:, used:] = -1
        errors.append((x - stack.decode(kept)).square().mean().item())
    assert errors == sorted(errors, reverse=True)
    assert errors[4] < 0.5 * errors[0]


def test_absent_codes_add_an_exact_zero() -> None:
    """-1 contributes nothing."""
    stack = ResidualQuantizer(3, 16, 4)
    assert torch.equal(stack.decode(torch.full((2, 5, 3), -1)), torch.zeros(2, 5, 4))


def test_dead_codes_come_back_from_the_data() -> None:
    """A code that nothing chooses is placed on a sample before long."""
    torch.manual_seed(0)
    book = Codebook(8, 2)
    book.vectors[3] = 1e3
    book.sums.copy_(book.vectors)
    x = torch.randn(256, 2)
    for _ in range(300):
        book.learn(x, book.search(x))
    assert book.vectors[3].abs().max() < 10.0


def test_gradient_passes_straight_through() -> None:
    """The quantiser is transparent to gradients."""
    stack = ResidualQuantizer(2, 16, 4).eval()
    x = torch.randn(10, 4, requires_grad=True)
    y, _, _ = stack(x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.ones(10, 4))
