"""Int8 linear layers: as exact as bf16 arithmetic allows, and strict about what fits together."""

from __future__ import annotations

import pytest
import torch

from kernels.int8 import Int8Linear, int8_linear, quantize_int8, use_int8


def test_levels_are_nearest() -> None:
    """Each weight is within half a step of its row's scale, and the largest uses the last level."""
    torch.manual_seed(0)
    weight = torch.randn(33, 48) * torch.logspace(-3, 3, 33)[:, None]
    levels, scale = quantize_int8(weight)
    error = (levels.float() * scale.float()[:, None] - weight).abs() / scale.float()[:, None]
    # bf16 rounds the scale by up to 2**-8, which the largest levels feel when they are clamped.
    assert error.max() <= 0.5 + 127 * 2**-8
    assert (levels.abs().amax(dim=1) >= 126).all()
    assert not quantize_int8(torch.zeros(2, 16))[0].any()


@pytest.mark.parametrize("backend", ["reference", "aten"])
@pytest.mark.parametrize("rows", [(1,), (2, 3), (17,), (1, 1)])
@pytest.mark.parametrize(
    ("in_features", "out_features"), [(16, 1), (96, 50), (256, 768), (704, 33)]
)
def test_as_exact_as_bf16(
    backend: str, rows: tuple[int, ...], in_features: int, out_features: int
) -> None:
    """The error is at most twice that of PyTorch's bf16 linear on the same weight, plus a bit."""
    torch.manual_seed(0)
    levels, scale = quantize_int8(torch.randn(out_features, in_features))
    x = torch.randn(*rows, in_features).bfloat16()
    weight = levels.double() * scale.double()[:, None]
    exact = x.double() @ weight.t()
    plain = torch.nn.functional.linear(x, weight.bfloat16()).double()
    got = int8_linear(x, levels, scale, backend=backend)  # type: ignore[arg-type]  # parametrised
    assert got.dtype == torch.bfloat16
    assert got.shape == (*rows, out_features)
    bound = 2 * (plain - exact).abs().max() + 2**-8 * exact.abs().max()
    assert (got.double() - exact).abs().max() <= bound


def test_module() -> None:
    """The module takes any floating type and non-contiguous input, and gives bf16."""
    torch.manual_seed(0)
    dense = torch.nn.Linear(48, 20, bias=False)
    module = Int8Linear.from_linear(dense, backend="aten")
    x = torch.randn(48, 5).t()
    got = module(x)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), dense(x), atol=0.05, rtol=0.02)
    assert set(module.state_dict()) == {"levels", "scale"}


def test_the_reference_keeps_the_type() -> None:
    """Only the CPU kernel is bound to bf16; the sum is the same in any type."""
    torch.manual_seed(0)
    module = Int8Linear.from_linear(torch.nn.Linear(50, 20, bias=False), backend="reference")
    x = torch.randn(3, 50).half()
    assert module(x).dtype == torch.float16
    torch.testing.assert_close(module(x), module(x.float()).half(), rtol=0, atol=0)


def test_every_layer_is_switched_or_none() -> None:
    """A layer that a backend cannot do is named, and the others stay as they were."""
    layers = torch.nn.Sequential(Int8Linear(32, 4, "reference"), Int8Linear(16, 4, "reference"))
    assert use_int8(layers, "aten") == 2
    assert [layer.backend for layer in layers] == ["aten", "aten"]
    layers = torch.nn.Sequential(Int8Linear(32, 4, "reference"), Int8Linear(20, 4, "reference"))
    with pytest.raises(ValueError, match=r"1: backend aten: .* a multiple of 16 wide, got 20"):
        use_int8(layers, "aten")
    assert [layer.backend for layer in layers] == ["reference", "reference"]
    with pytest.raises(ValueError, match="0: backend triton: expected tensors on cuda, got meta"):
        use_int8(layers.to("meta"), "triton")


def test_refusals() -> None:
    """Sizes, types and backends that do not fit are told, got and expected."""
    levels, scale = quantize_int8(torch.randn(4, 32))
    x = torch.randn(2, 32).bfloat16()
    with pytest.raises(ValueError, match=r"expected fp32, fp16 or bf16, .*got torch\.int64"):
        int8_linear(x.long(), levels, scale, backend="reference")
    with pytest.raises(ValueError, match=r"backend aten: expected bfloat16, got torch\.float32"):
        int8_linear(x.float(), levels, scale, backend="aten")
    with pytest.raises(ValueError, match=r"got \[2, 16\], \[4, 32\], \[4\]"):
        int8_linear(x[:, :16], levels, scale, backend="aten")
    with pytest.raises(ValueError, match=r"got \[0, 32\], \[4, 32\], \[4\]"):
        int8_linear(x[:0], levels, scale, backend="triton")
    with pytest.raises(ValueError, match=r"expected counters of int32, got torch\.int64"):
        int8_linear(x, levels, scale, backend="triton", arrived=torch.zeros(4).long())
    with pytest.raises(ValueError, match="out of reference, aten, triton, got fast"):
        int8_linear(x, levels, scale, backend="fast")  # type: ignore[arg-type]  # the point
    with pytest.raises(ValueError, match="a multiple of 16 wide, got 20"):
        Int8Linear(20, 4, backend="aten")
