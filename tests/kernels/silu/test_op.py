"""The gated SiLU: as exact as PyTorch's, however large the gate."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from kernels.silu import gated_silu
from tests.kernels.triton_cases import Guarded, assert_as_exact, on_device


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 2), (3, 1404), (2, 3, 64)])
@on_device
def test_as_exact_as_pytorch(device: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """The error is at most twice PyTorch's.

    Triton's interpreter cuts fp32 to bf16 where a device rounds, so there a bit is allowed.
    """
    torch.manual_seed(0)
    x = (torch.randn(shape) * 4).to(device, dtype)
    with Guarded():
        y = gated_silu(x, backend="triton")
    gate, up = x.double().chunk(2, -1)
    is_cut = device == "cpu" and dtype == torch.bfloat16
    plain = gated_silu(x, backend="reference")
    assert y.shape == plain.shape
    assert_as_exact(y, plain, F.silu(gate) * up, eps=2.0**-8 if is_cut else 1e-6)


@on_device
def test_a_shut_gate_is_zero(device: str) -> None:
    """A gate so far below zero that its exponential overflows lets nothing through."""
    x = torch.tensor([[-1e4, -200.0, 0.0, 3.0, 3.0, 3.0]], device=device)
    got = gated_silu(x, backend="triton")
    assert torch.equal(got.cpu(), torch.zeros(1, 3))


@on_device
def test_rows_that_do_not_lie_together(device: str) -> None:
    """Slices and transposes give what their copies give, to the bit."""
    torch.manual_seed(0)
    for x in (torch.randn(5, 64, device=device)[:, 3:37], torch.randn(34, 5, device=device).t()):
        strided = gated_silu(x, backend="triton")
        assert torch.equal(strided, gated_silu(x.contiguous(), backend="triton"))


def test_refusals() -> None:
    """Sizes, types and backends that do not fit are told, got and expected."""
    with pytest.raises(ValueError, match=r"expected \[..., 2 \* dim\], got \[2, 7\]"):
        gated_silu(torch.zeros(2, 7), backend="reference")
    with pytest.raises(ValueError, match=r"expected fp32, fp16 or bf16, got torch\.int8"):
        gated_silu(torch.zeros(2, 8, dtype=torch.int8), backend="reference")
    with pytest.raises(ValueError, match="out of reference, triton, got fast"):
        gated_silu(torch.zeros(2, 8), backend="fast")  # type: ignore[arg-type]  # the point
    with pytest.raises(ValueError, match="on cuda, got meta"):
        gated_silu(torch.zeros(2, 8, device="meta"), backend="triton")
