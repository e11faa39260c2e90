"""RMSNorm: as exact as PyTorch's, the residual added on the way."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from kernels.rmsnorm import rms_norm
from tests.kernels.triton_cases import Guarded, assert_as_exact, on_device

EPS = 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("has_residual", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (3, 700), (2, 3, 64)])
@on_device
def test_as_exact_as_pytorch(
    device: str, shape: tuple[int, ...], has_residual: bool, dtype: torch.dtype
) -> None:
    """The error is at most twice PyTorch's; the sum is PyTorch's to the bit, bf16 on a CPU aside.

    Triton's interpreter cuts fp32 to bf16 where a device rounds, so there a bit is allowed.
    """
    torch.manual_seed(0)
    is_cut = device == "cpu" and dtype == torch.bfloat16
    x = (torch.randn(shape) * 3).to(device, dtype)
    residual = torch.randn(shape).to(device, dtype) if has_residual else None
    weight = torch.rand(shape[-1]).to(device, dtype)
    with Guarded():
        y, total = rms_norm(x, weight, EPS, residual=residual, backend="triton")
    plain, plain_total = rms_norm(x, weight, EPS, residual=residual, backend="reference")
    bit = 2.0**-7 if is_cut else 0.0
    torch.testing.assert_close(total, plain_total, rtol=bit, atol=0)
    exact = F.rms_norm(total.double(), weight.shape, weight.double(), EPS)
    assert_as_exact(y, plain, exact, eps=bit or 1e-6)


@on_device
def test_rows_that_do_not_lie_together(device: str) -> None:
    """Slices and transposes give what their copies give, to the bit."""
    torch.manual_seed(0)
    x, residual = torch.randn(5, 64, device=device)[:, 3:36], torch.randn(33, 5, device=device).t()
    weight = torch.rand(66, device=device)[::2]
    strided = rms_norm(x, weight, EPS, residual=residual, backend="triton")
    packed = rms_norm(
        x.contiguous(),
        weight.contiguous(),
        EPS,
        residual=residual.contiguous(),
        backend="triton",
    )
    for got, expected in zip(strided, packed, strict=True):
        assert torch.equal(got, expected)


def test_refusals() -> None:
    """Sizes, types and backends that do not fit are told, got and expected."""
    x, weight = torch.zeros(2, 8), torch.ones(8)
    with pytest.raises(ValueError, match=r"expected \[..., dim\] and \[dim\], got \[2, 8\], \[4\]"):
        rms_norm(x, weight[:4], EPS, backend="reference")
    with pytest.raises(ValueError, match=r"residual \[2, 8\], got \[1, 8\]"):
        rms_norm(x, weight, EPS, residual=x[:1], backend="reference")
    with pytest.raises(ValueError, match=r"throughout, got torch.float32, torch.float16"):
        rms_norm(x, weight.half(), EPS, backend="reference")
    with pytest.raises(ValueError, match="out of reference, triton, got fast"):
        rms_norm(x, weight, EPS, backend="fast")  # type: ignore[arg-type]  # the point
    with pytest.raises(ValueError, match="on cuda, got meta"):
        rms_norm(x.to("meta"), weight.to("meta"), EPS, backend="triton")
