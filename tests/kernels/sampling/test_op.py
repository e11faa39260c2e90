"""Sampling on the device: the tokens of `model.transformer.sampling`, and no others in ties."""

from __future__ import annotations

import pytest
import torch

from kernels.sampling import kernel, sample_tokens
from model.sampling import Sampling
from model.transformer.sampling import sample
from tests.kernels.triton_cases import Guarded, on_device


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("vocab", "top_k"), [(1, 1), (50, 1), (37, 0), (90, 15)])
@on_device
def test_draws_what_the_model_draws(
    device: str, vocab: int, top_k: int, dtype: torch.dtype
) -> None:
    """Token for token as `model.transformer.sampling.sample` with the same noise.

    In one block or in several.

    Logits differ, so that it is said which of them are candidates and in what order.
    """
    torch.manual_seed(0)
    sampling = Sampling(0.8, top_k)
    # Steps that bf16 holds, in a random order.
    logits = torch.stack([torch.randperm(vocab) for _ in range(2)]).div(32).to(device, dtype)
    noise = torch.empty(2, sampling.num_candidates(vocab)).exponential_().to(device)
    expected = sample(logits, sampling, noise)
    with Guarded():
        got = sample_tokens(logits, 0.8, noise, backend="triton")
    assert torch.equal(got, expected)
    assert torch.equal(sample_tokens(logits, 0.8, noise, backend="reference"), expected)
    in_blocks = kernel.sample_tokens(logits, 0.8, noise, None, block=64)
    assert torch.equal(in_blocks, expected)


@on_device
def test_greedy_is_argmax(device: str) -> None:
    """Without noise, or at temperature 0, the first of the greatest logits is taken."""
    torch.manual_seed(0)
    logits = torch.randint(-3, 3, (4, 90)).float().to(device)
    logits[3] = -torch.zeros(90)  # a negative zero equals zero
    logits[3, 50] = 0.0
    expected = logits.argmax(-1)
    noise = torch.rand(4, 4, device=device) + 0.1
    assert torch.equal(sample_tokens(logits, 0.0, None, backend="triton"), expected)
    assert torch.equal(sample_tokens(logits, 0.0, noise, backend="triton"), expected)
    assert torch.equal(kernel.sample_tokens(logits, 0.0, None, None, block=32), expected)


@on_device
def test_ties_go_to_the_lower_token(device: str) -> None:
    """Equal logits are candidates in the order of their tokens, whatever the blocks."""
    torch.manual_seed(0)
    logits = torch.randint(-2, 2, (2, 50)).float().to(device)
    noise = torch.empty(2, 20).exponential_().to(device)
    expected = sample_tokens(logits, 1.0, noise, backend="reference")
    assert torch.equal(sample_tokens(logits, 1.0, noise, backend="triton"), expected)
    assert torch.equal(kernel.sample_tokens(logits, 1.0, noise, None, block=32), expected)


@on_device
def test_each_row_its_temperature_and_mask(device: str) -> None:
    """A row of a batch gets the token that it gets alone, with its own temperature and mask."""
    torch.manual_seed(0)
    logits = torch.randn(2, 2, 30, device=device)
    noise = torch.empty(2, 2, 12).exponential_().to(device)
    mask = torch.rand(2, 2, 30, device=device) < 0.3
    mask[0, 1] = False
    mask[0, 1, 21] = True  # fewer than there is noise for
    temperature = torch.tensor([[0.0, 0.5], [3.0, 1.0]], device=device)
    got = sample_tokens(logits, temperature, noise, mask, backend="triton")
    assert torch.equal(got, sample_tokens(logits, temperature, noise, mask, backend="reference"))
    assert mask.gather(-1, got[..., None]).all()
    for i, j in ((0, 0), (1, 1)):
        alone = sample_tokens(
            logits[i, j], float(temperature[i, j]), noise[i, j], mask[i, j], backend="triton"
        )
        assert got[i, j] == alone


def test_refusals() -> None:
    """Sizes, types and backends that do not fit are told, got and expected."""
    logits = torch.zeros(2, 8)
    with pytest.raises(ValueError, match=r"noise \[2, 8\] or narrower, got torch.float32 \[2, 9\]"):
        sample_tokens(logits, 1.0, torch.ones(2, 9), backend="reference")
    with pytest.raises(ValueError, match=r"mask of bool \[2, 8\], got torch.float32 \[2, 8\]"):
        sample_tokens(logits, 1.0, torch.ones(2, 8), logits, backend="reference")
    with pytest.raises(ValueError, match=r"temperatures in float32 \[2\], got torch.float32 \[3\]"):
        sample_tokens(logits, torch.ones(3), torch.ones(2, 8), backend="reference")
    with pytest.raises(ValueError, match=r"got torch.int64 \[2, 8\]"):
        sample_tokens(logits.long(), 1.0, None, backend="reference")
    with pytest.raises(ValueError, match="out of reference, triton, got fast"):
        sample_tokens(logits, 1.0, None, backend="fast")  # type: ignore[arg-type]  # the point


@on_device
def test_too_many_candidates(device: str) -> None:
    """What one program cannot merge is refused, not cut."""
    logits = torch.zeros(1, 32000, device=device)
    with pytest.raises(ValueError, match="at most 8192 to merge, got 16384"):
        sample_tokens(logits, 1.0, torch.ones(1, 1000, device=device), backend="triton")
