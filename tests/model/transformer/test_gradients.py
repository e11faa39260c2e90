"""Ways back that are written by hand are those that autograd finds."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.cache.rotary import rope_frequencies, rope_table, rotate
from model.transformer.attention import Attention
from model.transformer.gradients import attend, hiding, normalise, turn


def with_gradients(result: Tensor, inputs: tuple[Tensor, ...], grad: Tensor) -> tuple[Tensor, ...]:
    """Return the result and the gradients of the inputs."""
    return result.detach(), *torch.autograd.grad(result, inputs, grad)


@pytest.mark.parametrize("length", [5, 128, 300])
def test_attention_is_the_plain_one(length: int) -> None:
    """In fp32 the numbers agree, over one block of queries and over several."""
    torch.manual_seed(length)
    q, k, v = (torch.randn(2, 3, length, 8, requires_grad=True) for _ in range(3))
    grad = torch.randn(2, 3, length, 8)
    mask = (torch.rand(2, 1, length, length) < 0.5).tril() | torch.eye(length, dtype=torch.bool)
    plain = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    mine = attend(q, k, v, hiding(mask, torch.float32))
    for got, expected in zip(
        with_gradients(mine, (q, k, v), grad),
        with_gradients(plain, (q, k, v), grad),
        strict=True,
    ):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_attention_in_bf16_is_as_good_as_the_plain_one() -> None:
    """A module with grouped heads, its mask in bool, under autocast: off by bf16's rounding."""
    torch.manual_seed(1)
    attention = Attention(32, 4, 2)
    x = torch.randn(2, 150, 32)
    mask = torch.ones(2, 1, 150, 150, dtype=torch.bool).tril()
    exact = attention(x, None, mask)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = attention(x, None, mask)
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - exact).norm() < 0.01 * exact.norm()
    weight = attention.qkv.weight
    (expected,) = torch.autograd.grad(exact.square().mean(), weight)
    (got,) = torch.autograd.grad(rounded.float().square().mean(), weight)
    assert (got - expected).norm() < 0.02 * expected.norm()


def test_rotation_is_the_plain_one() -> None:
    """And its gradient the turn back."""
    torch.manual_seed(2)
    x = torch.randn(2, 7, 3, 8, requires_grad=True)
    grad = torch.randn_like(x)
    rope = rope_table(torch.arange(7)[None] * 31, rope_frequencies(8, 10_000.0))
    for got, expected in zip(
        with_gradients(turn(x, rope), (x,), grad),
        with_gradients(rotate(x, rope), (x,), grad),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)


def test_normalisation_is_the_plain_one() -> None:
    """With the gradients of what is normalised and of the weight."""
    torch.manual_seed(3)
    x = torch.randn(2, 5, 16, requires_grad=True)
    weight = torch.randn(16, requires_grad=True)
    grad = torch.randn_like(x)
    for got, expected in zip(
        with_gradients(normalise(x, weight, 1e-6), (x, weight), grad),
        with_gradients(F.rms_norm(x, (16,), weight, 1e-6), (x, weight), grad),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)
