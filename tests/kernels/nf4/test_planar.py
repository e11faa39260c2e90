"""A model is switched to the kernel's layout as a whole, or not at all."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kernels.nf4 import (
    NF4Linear,
    PlanarNF4Gated,
    PlanarNF4Linear,
    dequantize_nf4,
    nest_nf4,
    planar_gated,
    planar_linear,
    quantize_nf4,
    repack_nf4,
    use_planar,
)
from kernels.nf4.reference import NestedScales


def small_model(width: int = 128) -> nn.Sequential:
    """Return two NF4 layers, one of them deep inside, and a dense one."""
    return nn.Sequential(
        NF4Linear.from_linear(nn.Linear(128, width, bias=False), backend="reference"),
        nn.Sequential(NF4Linear.from_linear(nn.Linear(width, 64, bias=False), backend="reference")),
        nn.Linear(64, 5),
    )


def test_every_layer_is_switched() -> None:
    """The model gives the same bits as before, for the reference multiplies the same weight."""
    model = small_model()
    x = torch.randn(3, 128)
    before = model(x)
    assert use_planar(model, "reference") == 2
    assert not any(isinstance(module, NF4Linear) for module in model.modules())
    assert torch.equal(model(x), before)
    assert set(model.state_dict()) == {"2.weight", "2.bias"}


def test_a_width_that_cannot_be_switches_nothing() -> None:
    """The layer is named; blocks that straddle rows have no place in the layout."""
    model = small_model(width=72)
    with pytest.raises(ValueError, match=r"1\.0: .* expected rows a multiple of 64 wide, .*got 72"):
        use_planar(model, "reference")
    assert isinstance(model[0], NF4Linear)


@pytest.mark.parametrize("is_nested", [False, True])
def test_layers_from_rest(is_nested: bool) -> None:
    """Linear and gated layers multiply by the weight at rest, wherever it lies."""
    weight = torch.randn(12, 128)
    packed, absmax = quantize_nf4(weight)
    scales = nest_nf4(absmax) if is_nested else absmax
    expanded = scales.expand() if isinstance(scales, NestedScales) else scales
    dense = dequantize_nf4(packed, expanded, (12, 128))
    x = torch.randn(2, 3, 128)
    linear = PlanarNF4Linear.from_rest(packed, scales, (12, 128), "reference")
    assert torch.equal(linear(x), F.linear(x, dense))
    assert (linear.in_features, linear.out_features) == (128, 12)
    gated = PlanarNF4Gated.from_rest(packed, scales, (12, 128), "reference")
    gate, up = F.linear(x, dense).chunk(2, dim=-1)
    assert torch.equal(gated(x), F.silu(gate) * up)
    assert (gated.in_features, gated.out_features) == (128, 6)
    assert all(buffer.is_meta for buffer in linear.to("meta").buffers())


def test_refusals() -> None:
    """Types, sizes and backends that do not fit are told, got and expected."""
    packed, absmax = quantize_nf4(torch.randn(3, 128))
    plain = repack_nf4(packed, absmax, (3, 128))
    x = torch.randn(2, 128)
    with pytest.raises(ValueError, match=r"as many gates as ups, got 3 rows"):
        repack_nf4(packed, absmax, (3, 128), is_gated=True)
    with pytest.raises(ValueError, match=r"absmax of torch.float32 \[6\], got torch.float32 \[5\]"):
        repack_nf4(packed, absmax[:5], (3, 128))
    scales = nest_nf4(absmax)
    short = NestedScales(scales.levels[:5], scales.code, scales.absmax, scales.offset)
    with pytest.raises(ValueError, match=r"nested scales: expected uint8 \[6\].*got .*\[5\]"):
        repack_nf4(packed, short, (3, 128))
    with pytest.raises(ValueError, match=r"expected \[\.\.\., 128\], got \[2, 64\]"):
        planar_linear(x[:, :64], plain, backend="reference")
    with pytest.raises(ValueError, match=r"expected fp32, fp16 or bf16, got torch\.int64"):
        planar_linear(x.long(), plain, backend="reference")
    with pytest.raises(ValueError, match="out of reference, triton, got fast"):
        planar_linear(x, plain, backend="fast")  # type: ignore[arg-type]  # the point
    with pytest.raises(ValueError, match="expected a gated weight"):
        planar_gated(x, plain, backend="reference")
    gated = repack_nf4(*quantize_nf4(torch.randn(4, 128)), (4, 128), is_gated=True)
    with pytest.raises(ValueError, match="not gated"):
        planar_linear(x, gated, backend="reference")
    with pytest.raises(ValueError, match=r"expected float32 \[blocks\], got torch\.float16 \[6\]"):
        nest_nf4(absmax.half())
    with pytest.raises(ValueError, match="expected finite scales"):
        nest_nf4(torch.tensor([1.0, float("nan")]))
