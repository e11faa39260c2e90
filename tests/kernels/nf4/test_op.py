"""NF4: bit-equal to bitsandbytes, close to the weight, and strict about what fits together."""

from __future__ import annotations

import pytest
import torch

from kernels.nf4 import NF4Linear, dequantize_nf4, nf4_linear, quantize_nf4
from kernels.nf4.reference import LEVELS

# What bitsandbytes 0.50.2 makes of `golden_weight()` (CPU, nf4, block 64, no double quantisation).
GOLDEN_PACKED = (
    "2b9643c9753ca8642b9643ca753ca8642b9753ca841fd9520eb631fc841fda522b9753ca854db964"
    "1db742ec8521da631db742ec9521da631db742ec9520eb621ec841fda520eb731fc841fda5"
)
GOLDEN_ABSMAX = [3.875, 7.5625, 7.8125]


def golden_weight() -> torch.Tensor:
    """Return float32 [2, 77], exact in binary: not a multiple of the block, uneven in scale."""
    index = torch.arange(2 * 77)
    return ((index * 7919 % 257 - 128) * (1 + index // 40) / 64).view(2, 77)


def test_equal_to_bitsandbytes() -> None:
    """Packed levels and scales are the ones that bitsandbytes stores."""
    packed, absmax = quantize_nf4(golden_weight())
    assert bytes(packed.tolist()).hex() == GOLDEN_PACKED
    assert absmax.tolist() == GOLDEN_ABSMAX


@pytest.mark.parametrize("shape", [(256, 704), (3, 50), (1, 1), (5, 13), (64,), (0, 4)])
def test_every_weight_gets_its_nearest_level(shape: tuple[int, ...]) -> None:
    """No other level of the block's scale would be closer."""
    torch.manual_seed(0)
    weight = torch.randn(shape) * 3
    packed, absmax = quantize_nf4(weight)
    got = dequantize_nf4(packed, absmax, shape)
    assert got.shape == weight.shape
    scale = absmax.repeat_interleave(64)[: weight.numel()]
    choices = scale[:, None] * torch.tensor(LEVELS)
    best = (choices - weight.flatten()[:, None]).abs().amin(dim=1)
    torch.testing.assert_close((got - weight).flatten().abs(), best, atol=1e-6, rtol=0)


def test_levels_survive() -> None:
    """Quantising again what was dequantised changes nothing."""
    torch.manual_seed(0)
    packed, absmax = quantize_nf4(torch.randn(16, 64))
    again = quantize_nf4(dequantize_nf4(packed, absmax, (16, 64)))
    assert torch.equal(again[0], packed)
    assert torch.equal(again[1], absmax)


def test_a_block_of_zeros_stays_zero() -> None:
    """There is no division by a scale of zero."""
    packed, absmax = quantize_nf4(torch.zeros(2, 64))
    assert not dequantize_nf4(packed, absmax, (2, 64)).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_linear_multiplies_by_the_dequantised_weight(dtype: torch.dtype) -> None:
    """The module is a linear layer over the quantised weight, also for non-contiguous input."""
    torch.manual_seed(0)
    dense = torch.nn.Linear(96, 40, bias=False)
    linear = NF4Linear.from_linear(dense, backend="reference")
    x = torch.randn(96, 3, dtype=dtype).t()
    weight = dequantize_nf4(linear.packed, linear.absmax, (40, 96)).to(dtype)
    assert torch.equal(linear(x), x @ weight.t())
    assert (linear(x) - dense(x.float())).abs().max() > 0
    assert sum(buffer.nbytes for buffer in linear.buffers()) == 40 * 96 // 2 + 40 * 96 // 64 * 4


def test_refusals() -> None:
    """Sizes and types that do not belong together are told, got and expected."""
    packed, absmax = quantize_nf4(torch.randn(4, 64))
    with pytest.raises(ValueError, match=r"\[5, 64\]: expected packed of torch.uint8 \[160\]"):
        dequantize_nf4(packed, absmax, (5, 64))
    with pytest.raises(ValueError, match=r"absmax of torch.float32 \[4\], got torch.float16 \[4\]"):
        nf4_linear(torch.randn(64), packed, absmax.half(), 4, backend="reference")
    with pytest.raises(ValueError, match="expected a finite weight"):
        quantize_nf4(torch.tensor([1.0, float("inf")]))
