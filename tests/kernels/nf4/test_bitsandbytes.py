"""What is stored is what bitsandbytes stores, bit for bit, and both can be imported at once."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import kernels
from kernels.nf4 import (
    NF4Linear,
    dequantize_nf4,
    nest_nf4,
    quantize_nf4,
    use_library,
    use_planar,
)
from kernels.nf4.library import load_library
from kernels.nf4.reference import nested_code

SHAPES = [(96, 512), (5, 64), (3, 704), (300, 128), (1, 50)]


@pytest.fixture(scope="module")
def bnb() -> ModuleType:
    """Functions of bitsandbytes, which runs on a CPU as well."""
    pytest.importorskip("bitsandbytes", reason="needs the package bitsandbytes")
    return importlib.import_module("bitsandbytes.functional")


def uneven_weight(shape: tuple[int, int]) -> torch.Tensor:
    """Return float32 whose scales span three decades, with a block of zeros where there is room."""
    weight = torch.randn(shape) * torch.logspace(-2, 1, shape[0])[:, None]
    if weight.numel() >= 128:
        weight.view(-1)[64:128] = 0
    return weight


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_levels_and_scales(bnb: ModuleType, shape: tuple[int, int], dtype: torch.dtype) -> None:
    """Quantising and dequantising give bitsandbytes' bits, whatever the type of the weight."""
    torch.manual_seed(0)
    weight = uneven_weight(shape).to(dtype)
    expected, state = bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    packed, absmax = quantize_nf4(weight)
    assert torch.equal(packed, expected.flatten())
    assert torch.equal(absmax, state.absmax)
    back = dequantize_nf4(packed, absmax, shape)
    assert torch.equal(back.to(dtype), bnb.dequantize_4bit(expected, state))


@pytest.mark.parametrize("shape", [*SHAPES, (640, 768)])
@pytest.mark.parametrize("is_constant", [False, True])
def test_nested_scales(bnb: ModuleType, shape: tuple[int, int], is_constant: bool) -> None:
    """Scales quantised in their turn are the same too, also where all of them are alike."""
    torch.manual_seed(0)
    weight = torch.full(shape, 0.5) if is_constant else uneven_weight(shape)
    expected, state = bnb.quantize_4bit(
        weight, blocksize=64, quant_type="nf4", compress_statistics=True
    )
    packed, absmax = quantize_nf4(weight)
    scales = nest_nf4(absmax)
    assert torch.equal(scales.levels, state.absmax)
    assert torch.equal(scales.code, state.state2.code)
    assert torch.equal(scales.absmax, state.state2.absmax)
    assert torch.equal(scales.offset, state.offset)
    back = dequantize_nf4(packed, scales.expand(), shape)
    assert torch.equal(back, bnb.dequantize_4bit(expected, state))


def test_the_code_of_nested_scales(bnb: ModuleType) -> None:
    """Its 256 values are the ones that bitsandbytes makes."""
    assert torch.equal(nested_code(torch.device("cpu")), bnb.create_dynamic_map())


def test_other_packages_bear_with_our_name(bnb: ModuleType) -> None:
    """Others look for a package named kernels, find ours, which is not what they want, and go on.

    That holds for bitsandbytes itself, and for what transformers builds upon it.
    """
    assert bnb.__name__ == "bitsandbytes.functional"
    layer = importlib.import_module("bitsandbytes").nn.Linear4bit(64, 64, quant_type="nf4")
    assert layer.to("cpu")(torch.randn(2, 64)).isfinite().all()
    pytest.importorskip("transformers", reason="needs the package transformers")
    importlib.import_module("transformers.integrations.bitsandbytes")
    assert sys.modules["kernels"] is kernels
    assert Path(kernels.__file__ or "").parent == Path(__file__).parents[3] / "kernels"


@pytest.mark.parametrize("shape", [(96, 512), (5, 64), (3, 704)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 3])
def test_its_product_is_ours(
    bnb: ModuleType, shape: tuple[int, int], dtype: torch.dtype, rows: int
) -> None:
    """It multiplies by weights as we store them."""
    del bnb
    torch.manual_seed(0)
    linear = torch.nn.Linear(shape[1], shape[0], bias=False)
    layer = NF4Linear.from_linear(linear, "reference")
    x = torch.randn(2, rows, shape[1]).to(dtype)
    expected = layer(x)
    assert use_library(layer) == 1
    y = layer(x)
    assert (y.dtype, y.shape) == (dtype, expected.shape)
    torch.testing.assert_close(
        y, expected, rtol=1e-2, atol=1e-2 if dtype != torch.float32 else 1e-4
    )


def test_widths_that_it_cannot_do(bnb: ModuleType) -> None:
    """A layer whose blocks straddle rows stays ours, and cannot be given to it."""
    del bnb
    layers = torch.nn.Sequential(NF4Linear(64, 8, "reference"), NF4Linear(96, 64, "reference"))
    assert use_library(layers) == 1
    assert [layer.backend for layer in layers] == ["bitsandbytes", "reference"]
    with pytest.raises(ValueError, match="expected rows a multiple of 64 wide, got 96"):
        NF4Linear(96, 64, "bitsandbytes")(torch.zeros(1, 96))


def test_what_it_multiplies_by_is_not_repacked(bnb: ModuleType) -> None:
    """A device with kernels of ours leaves it the layers that it was chosen for."""
    del bnb
    layers = torch.nn.Sequential(NF4Linear(64, 8, "reference"))
    use_library(layers)
    assert use_planar(layers, "reference") == 0


def test_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for it is told, and nothing else needs it."""
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    load_library.cache_clear()
    with pytest.raises(ValueError, match="the package bitsandbytes cannot be loaded"):
        use_library(NF4Linear(64, 8, "reference"))
    load_library.cache_clear()
